"""The reference worker: reads a document, finds its topics, and commits the result together with the news of it.

This is the example to copy. The outbox needs two lines of it: the event, and `emit` inside the transaction that
writes the result. Nothing is sent from here, so nothing here has to be retried, timed out or logged in vain: a relay
delivers what was committed, and what was rolled back never happened.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from listeners.content import latest_extraction
from listeners.tables import Content, Extraction
from outbox import Event, emit
from outbox_demo.documents import Document
from outbox_demo.topics import extract_topics


class ExtractionCompleted(Event, type="extraction.completed"):
    """The topics of a content were extracted and committed. On the wire: `{"contentId": "…"}`."""

    content_id: str


@dataclass(frozen=True)
class Extracted:
    """What became of one document; without a message id it was known already, and nothing was written."""

    topics: int
    message_id: str | None = None

    @property
    def is_new(self) -> bool:
        return self.message_id is not None


def extract(engine: sa.Engine, document: Document) -> Extracted:
    """Extract a document's topics, and commit them together with an `extraction.completed` message.

    A document whose text has not changed since the last time is left alone. Several workers may be given the same
    document at once: one extracts it, the others find it known.

    Args:
        engine: The database, migrated (`outbox db upgrade`).
        document: What to extract from.

    Example:
        >>> for document in read_documents(find_documents(["docs/"])):
        ...     if isinstance(document, Document):
        ...         extract(engine, document)
    """
    with Session(engine) as session:
        if (known := _known(session, document)) is not None:
            return known
    topics = [topic.as_json() for topic in extract_topics(document.text)]  # takes its time, so outside the transaction
    with Session(engine) as session, session.begin():
        if not _write_content(session, document):
            return Extracted(len(topics))
        session.add(Extraction(content_id=document.id, topics=topics))
        message_id = emit(session, ExtractionCompleted(content_id=document.id), ordering_key=document.id)
    return Extracted(len(topics), message_id)


def _known(session: Session, document: Document) -> Extracted | None:
    content = session.get(Content, document.id)
    if content is None or content.sha256 != document.sha256:
        return None
    extraction = latest_extraction(session, document.id)
    return Extracted(len(extraction.topics)) if extraction is not None else None


def _write_content(session: Session, document: Document) -> bool:
    """Write the content, unless another worker has meanwhile extracted the very same text.

    The statement locks the row even where its WHERE lets nothing through, so the look at the extractions that follows
    sees what a worker before us committed, and one behind us waits.
    """
    insert = _insert(session).values(
        id=document.id,
        title=document.title,
        source=document.source,
        media_type=document.media_type,
        sha256=document.sha256,
    )
    new = insert.excluded
    statement = insert.on_conflict_do_update(
        index_elements=["id"],
        set_={name: new[name] for name in ("title", "source", "media_type", "sha256", "updated_at")},
        where=Content.sha256 != new.sha256,
    )
    written = session.scalar(statement.returning(Content.id)) is not None
    return written or latest_extraction(session, document.id) is None


def _insert(session: Session) -> postgresql.Insert | sqlite.Insert:
    on_postgres = session.get_bind(Content).dialect.name == "postgresql"
    return postgresql.insert(Content) if on_postgres else sqlite.insert(Content)
