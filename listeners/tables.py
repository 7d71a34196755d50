"""The content tables: what was read, the topics found in it, and the graphs built from them.

These tables are defined beside the listener that fills them, in a separate `MetaData`. A host that stores its content
elsewhere leaves them out (`outbox db upgrade --only outbox`). They work alike on PostgreSQL and SQLite. The migration
`content_0001` creates them; it also holds what SQLAlchemy cannot express: ids and times for rows inserted by plain SQL,
and the kind of a JSON value.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from outbox.tables import JSON, Instant

BASELINE = "BASELINE"


def _now() -> datetime:
    return datetime.now(UTC)


def _id() -> Mapped[UUID]:
    return mapped_column(sa.Uuid, primary_key=True, default=uuid4, server_default=sa.FetchedValue())


def _instant() -> Mapped[datetime]:
    return mapped_column(Instant, default=_now, server_default=sa.FetchedValue())


class ContentBase(DeclarativeBase):
    metadata = sa.MetaData()


class Content(ContentBase):
    """One piece of content as it was last read; its text is not stored."""

    __tablename__ = "contents"
    __table_args__ = (
        sa.CheckConstraint("id <> ''", name="contents_has_id"),
        sa.CheckConstraint("length(sha256) = 64", name="contents_sha256_is_hex"),
    )

    id: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    title: Mapped[str] = mapped_column(sa.Text)
    source: Mapped[str] = mapped_column(sa.Text)
    media_type: Mapped[str] = mapped_column(sa.Text)
    sha256: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = _instant()
    updated_at: Mapped[datetime] = _instant()


class Extraction(ContentBase):
    """The topics found in a content, each `{"topic", "weight", "sentences"}`; only the latest extraction is used.

    `sentences` holds the positions of the sentences in which a topic occurs; topics that share a sentence co-occur.
    """

    __tablename__ = "extractions"
    __table_args__ = (
        # the target of a foreign key: a graph refers to (extraction, content) together, so the two always agree
        sa.UniqueConstraint("id", "content_id", name="extractions_of_content"),
        sa.Index("extractions_latest", "content_id", "created_at"),
    )

    id: Mapped[UUID] = _id()
    content_id: Mapped[str] = mapped_column(sa.Text, sa.ForeignKey("contents.id"))
    topics: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    created_at: Mapped[datetime] = _instant()


class TopicGraph(ContentBase):
    """A graph over the topics of one extraction; a content has at most one of type `BASELINE`."""

    __tablename__ = "topic_graphs"
    __table_args__ = (
        sa.ForeignKeyConstraint(["extraction_id", "content_id"], ["extractions.id", "extractions.content_id"]),
        sa.CheckConstraint("type <> ''", name="topic_graphs_has_type"),
        sa.CheckConstraint(
            "node_count >= 0 AND edge_count BETWEEN 0 AND node_count * (node_count - 1) / 2",
            name="topic_graphs_counts_agree",
        ),
        sa.Index(
            "topic_graphs_one_baseline",
            "content_id",
            unique=True,
            postgresql_where=sa.text("type = 'BASELINE'"),
            sqlite_where=sa.text("type = 'BASELINE'"),
        ),
    )

    id: Mapped[UUID] = _id()
    content_id: Mapped[str] = mapped_column(sa.Text, sa.ForeignKey("contents.id"))
    extraction_id: Mapped[UUID] = mapped_column(sa.Uuid)
    type: Mapped[str] = mapped_column(sa.Text)
    graph: Mapped[dict[str, Any]] = mapped_column(JSON)
    node_count: Mapped[int] = mapped_column(sa.Integer)
    edge_count: Mapped[int] = mapped_column(sa.Integer)
    created_at: Mapped[datetime] = _instant()
