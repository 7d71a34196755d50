"""Documents, their extracted topics, and their baseline topic graphs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json, to_json

from listeners.tables import BASELINE, Content, Extraction, TopicGraph
from outbox_cli.dashboard.drawing import Drawing, draw

LIMIT = 60
TOPICS = 40


@dataclass(frozen=True)
class Document:
    """One document in the list."""

    id: str
    title: str
    source: str
    media_type: str
    updated_at: datetime
    nodes: int | None
    edges: int | None


@dataclass(frozen=True)
class Documents:
    """The latest documents.

    Args:
        is_installed: Whether the tables of the content branch exist.
        total: The count of documents; `with_graph` counts those with a baseline.
    """

    is_installed: bool
    query: str = ""
    total: int = 0
    with_graph: int = 0
    documents: list[Document] = field(default_factory=list)


@dataclass(frozen=True)
class DocumentDetail:
    """One document.

    Args:
        topics: The strongest topics of its latest extraction: ``{"topic", "weight", "sentences"}``.
        graph: Its baseline: ``{"nodes": […], "edges": […]}``; ``None`` if it does not exist yet.
    """

    document: Document
    sha256: str
    extracted_at: datetime | None
    topics: list[dict[str, Any]]
    topic_count: int
    graph: dict[str, Any] | None
    built_at: datetime | None

    @property
    def drawing(self) -> Drawing | None:
        """Its graph, laid out once for all viewers."""
        return None if self.graph is None else _drawn(to_json(self.graph))


def is_installed(connection: sa.Connection) -> bool:
    """Return whether the tables of the content branch exist."""
    inspector = sa.inspect(connection)
    return all(inspector.has_table(name) for name in ("contents", "extractions", "topic_graphs"))


def documents(connection: sa.Connection, query: str) -> Documents:
    """Return the latest documents with this text in their title or id."""
    if not is_installed(connection):
        return Documents(is_installed=False)
    c: Any = Content.__table__
    g: Any = TopicGraph.__table__
    baseline = sa.and_(g.c.content_id == c.c.id, g.c.type == BASELINE)
    columns = (c.c.id, c.c.title, c.c.source, c.c.media_type, c.c.updated_at, g.c.node_count, g.c.edge_count)
    select = (
        sa.select(*columns).select_from(c.outerjoin(g, baseline)).order_by(c.c.updated_at.desc(), c.c.id).limit(LIMIT)
    )
    if query:
        text = query.lower()
        select = select.where(
            sa.func.lower(c.c.title).contains(text, autoescape=True)
            | sa.func.lower(c.c.id).contains(text, autoescape=True)
        )
    total = connection.scalar(sa.select(sa.func.count()).select_from(c)) or 0
    graphs = connection.scalar(sa.select(sa.func.count()).select_from(g).where(g.c.type == BASELINE)) or 0
    return Documents(True, query, total, graphs, [Document(*row) for row in connection.execute(select)])


def document(connection: sa.Connection, id_: str) -> DocumentDetail | None:
    """Return one document with its topics and its graph; ``None`` if no document has this id."""
    if not is_installed(connection):
        return None
    c: Any = Content.__table__
    g: Any = TopicGraph.__table__
    e: Any = Extraction.__table__
    row = connection.execute(sa.select(c).where(c.c.id == id_)).first()
    if row is None:
        return None
    graph = connection.execute(sa.select(g).where(g.c.content_id == id_, g.c.type == BASELINE)).first()
    extraction = connection.execute(
        sa.select(e).where(e.c.content_id == id_).order_by(e.c.created_at.desc()).limit(1)
    ).first()
    topics = extraction.topics if extraction is not None else []
    listed = Document(
        row.id,
        row.title,
        row.source,
        row.media_type,
        row.updated_at,
        graph.node_count if graph else None,
        graph.edge_count if graph else None,
    )
    return DocumentDetail(
        listed,
        row.sha256,
        extraction.created_at if extraction is not None else None,
        [topic for topic in topics[:TOPICS] if isinstance(topic, dict)],
        len(topics),
        graph.graph if graph is not None else None,
        graph.created_at if graph is not None else None,
    )


@lru_cache(maxsize=64)
def _drawn(graph: bytes) -> Drawing:
    return draw(from_json(graph))
