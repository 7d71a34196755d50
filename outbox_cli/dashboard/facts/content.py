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
# the columns of `Document`, and the baseline if there is one
_LISTED = sa.select(
    Content.id,
    Content.title,
    Content.source,
    Content.media_type,
    Content.updated_at,
    TopicGraph.node_count,
    TopicGraph.edge_count,
).outerjoin(TopicGraph, (TopicGraph.content_id == Content.id) & (TopicGraph.type == BASELINE))


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
    listed = _LISTED.order_by(Content.updated_at.desc(), Content.id).limit(LIMIT)
    if query:
        listed = listed.where(sa.or_(*(each.icontains(query, autoescape=True) for each in (Content.title, Content.id))))
    total = connection.scalar(sa.select(sa.func.count()).select_from(Content)) or 0
    graphs = connection.scalar(sa.select(sa.func.count()).where(TopicGraph.type == BASELINE)) or 0
    return Documents(True, query, total, graphs, [Document(*row) for row in connection.execute(listed)])


def document(connection: sa.Connection, id_: str) -> DocumentDetail | None:
    """Return one document with its topics and its graph; ``None`` if no document has this id."""
    if not is_installed(connection):
        return None
    details = _LISTED.add_columns(Content.sha256, TopicGraph.graph, TopicGraph.created_at.label("built_at"))
    row = connection.execute(details.where(Content.id == id_)).first()
    if row is None:
        return None
    latest = sa.select(Extraction.topics, Extraction.created_at).where(Extraction.content_id == id_)
    extraction = connection.execute(latest.order_by(Extraction.created_at.desc()).limit(1)).first()
    topics = extraction.topics if extraction is not None else []
    return DocumentDetail(
        document=Document(*row[:7]),
        sha256=row.sha256,
        extracted_at=extraction.created_at if extraction is not None else None,
        topics=[topic for topic in topics[:TOPICS] if isinstance(topic, dict)],
        topic_count=len(topics),
        graph=row.graph,
        built_at=row.built_at,
    )


@lru_cache(maxsize=64)
def _drawn(graph: bytes) -> Drawing:
    return draw(from_json(graph))
