"""The calls of a receiver in tests, and the effects."""

import base64

from structlog.typing import EventDict

from outbox import Message
from support.databases import Database

SECRET = "0123456789abcdef0123456789abcdef"
OLD = "fedcba9876543210fedcba9876543210"
WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()
PATH = "/extraction/internal/completed"
GUIDES = {"X-Internal-Secret": SECRET, "Content-Type": "application/json"}
BODY = b'{"contentId": "test-content-id"}'
TOPICS = '[{"topic": "cat", "weight": 1.0, "sentences": [1]}, {"topic": "dog", "weight": 0.5, "sentences": [1]}]'


def extracted(database: Database, content_id: str = "test-content-id") -> None:
    """Add a content with its topics."""
    database.execute(
        "INSERT INTO contents (id, title, source, media_type, sha256) VALUES (:id, 't', 's', 'text/plain', :sha)",
        id=content_id,
        sha="0" * 64,
    )
    database.execute("INSERT INTO extractions (content_id, topics) VALUES (:id, :topics)", id=content_id, topics=TOPICS)


def graphs(database: Database) -> int:
    return int(database.scalar("SELECT count(*) FROM topic_graphs WHERE type = 'BASELINE'"))


class Counting:
    """A handler that remembers what it was called with."""

    def __init__(self) -> None:
        self.seen: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.seen.append(message)


def audited(records: list[EventDict]) -> list[EventDict]:
    return [record for record in records if record["event"] == "call"]
