"""The reference worker: read a document, find its topics, and commit the result together with its message.

This is the example to copy. The outbox needs two lines of it: the event, and `emit` inside the transaction that writes
the result. The worker sends nothing, so it needs no retry, timeout or logging of failed calls: a relay delivers the
messages that were committed. A transaction that was rolled back leaves no message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from listeners.content import latest_extraction
from listeners.tables import Content, Extraction
from outbox import Event, emit
from outbox.tables import insert
from outbox_demo.documents import Document
from outbox_demo.topics import extract_topics


class ExtractionCompleted(Event, type="extraction.completed"):
    """The topics of a content were extracted and committed. On the wire: `{"contentId": "…"}`."""

    content_id: str


@dataclass(frozen=True)
class Extracted:
    """The topics of one document, strongest first. Without a message id, it was known and nothing was written."""

    topics: Sequence[str]
    message_id: str | None = None


def extract(engine: sa.Engine, document: Document) -> Extracted:
    """Extract a document's topics, and commit them together with an `extraction.completed` message.

    A document whose text has not changed since the last time is skipped. Several workers may get the same document at
    the same time: one worker extracts it, and the rest find that it is known.

    Args:
        engine: The database, migrated (`outbox db upgrade`).
        document: The document to extract from.

    Example:
        >>> for document in map(read_document, find_documents(["docs/"])):
        ...     if isinstance(document, Document):
        ...         extract(engine, document)
    """
    with Session(engine) as session:
        if (known := _known(session, document)) is not None:
            return known
    topics = extract_topics(document.text)  # slow, so outside the transaction
    names = [topic.topic for topic in topics]
    with Session(engine) as session, session.begin():
        if not _write_content(session, document):
            return Extracted(names)
        session.add(Extraction(content_id=document.id, topics=[topic.as_json() for topic in topics]))
        message_id = emit(session, ExtractionCompleted(content_id=document.id), ordering_key=document.id)
    return Extracted(names, message_id)


def _known(session: Session, document: Document) -> Extracted | None:
    content = session.get(Content, document.id)
    if content is None or content.sha256 != document.sha256:
        return None
    extraction = latest_extraction(session, document.id)
    return Extracted([topic["topic"] for topic in extraction.topics]) if extraction is not None else None


def _write_content(session: Session, document: Document) -> bool:
    """Write the content, unless another worker has extracted the same text in the meantime.

    The statement locks the row even if its WHERE excludes it. So the following query of the extractions sees what an
    earlier worker committed, and a later worker waits.
    """
    values = insert(session.get_bind(Content), Content).values(
        id=document.id,
        title=document.title,
        source=document.source,
        media_type=document.media_type,
        sha256=document.sha256,
    )
    new = values.excluded
    statement = values.on_conflict_do_update(
        index_elements=["id"],
        set_={name: new[name] for name in ("title", "source", "media_type", "sha256", "updated_at")},
        where=Content.sha256 != new.sha256,
    )
    written = session.scalar(statement.returning(Content.id)) is not None
    return written or latest_extraction(session, document.id) is None
