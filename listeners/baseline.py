"""The baseline listener: when an extraction is completed, it builds the content's baseline graph, once.

The listener works in the session that it receives; the caller commits its transaction, which also carries the inbox
mark. Even if it runs several times, or at the same time, the partial unique index `topic_graphs_one_baseline` admits
only one baseline for each content.
"""

from __future__ import annotations

import logging

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.orm import Session

from listeners.content import latest_extraction
from listeners.graph import BaselineGraph, build_baseline, parse_topics
from listeners.tables import BASELINE, Content, Extraction, TopicGraph
from outbox import Message, Reject
from outbox.checks.payload import is_storable
from outbox.tables import insert
from relay.observe.logging import one_line
from relay.observe.process import building

logger = logging.getLogger("ContentBaselineListener")


class UnknownContent(Reject):
    """No content has this id."""

    code = "unknown_content"


class NotExtracted(Reject):
    """The content has no extraction to build a baseline from."""

    code = "no_extraction"


def on_extraction_completed(message: Message, session: Session) -> None:
    """Build the baseline graph of the content that `message` names, unless it exists.

    Raises `Reject` if no attempt could ever succeed: there is no usable `contentId`, the content is unknown or has no
    extraction, or the extraction's topics cannot be read.
    """
    with building() as build:
        try:
            build.result = "built" if _build_unless_present(message, session) else "present"
        except Reject:
            build.result = "rejected"
            raise


def _build_unless_present(message: Message, session: Session) -> bool:
    """Build and insert the baseline; return whether this one is now in the database."""
    content_id = _content_id(message)
    shown = one_line(content_id)
    logger.info("Extraction completed for content: %s", shown)
    if _has_baseline(session, content_id):
        logger.info("Baseline already there for %s", shown)
        return False
    extraction = _extraction(session, content_id)
    logger.info("Auto-building baseline for content: %s", shown)
    graph = _build(extraction)
    if _insert_unless_present(session, extraction, graph):
        logger.info("Baseline auto-build complete for %s", shown)
        return True
    logger.info("Baseline already there for %s", shown)
    return False


def _content_id(message: Message) -> str:
    content_id = message.data.get("contentId") if isinstance(message.data, dict) else None
    if content_id is None:
        raise Reject("the event has no contentId")
    if not isinstance(content_id, str):
        raise Reject(f"contentId must be a string, not {type(content_id).__name__}")
    if not (content_id.strip() and is_storable(content_id)):
        raise Reject(f"contentId {content_id!r} cannot be the id of a content")
    return content_id


def _has_baseline(session: Session, content_id: str) -> bool:
    query = sa.exists().where(TopicGraph.content_id == content_id, TopicGraph.type == BASELINE)
    return bool(session.scalar(sa.select(query)))


def _extraction(session: Session, content_id: str) -> Extraction:
    extraction = latest_extraction(session, content_id)
    if extraction is not None:
        return extraction
    if session.get(Content, content_id) is None:
        raise UnknownContent(f"unknown content: {content_id!r} is not in contents")
    raise NotExtracted(f"content {content_id!r} has no extraction")


def _build(extraction: Extraction) -> BaselineGraph:
    try:
        return build_baseline(parse_topics(extraction.topics))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Reject(f"the topics of extraction {extraction.id} cannot be read: {where}: {first['msg']}") from error


def _insert_unless_present(session: Session, extraction: Extraction, graph: BaselineGraph) -> bool:
    values = insert(session.get_bind(TopicGraph), TopicGraph).values(
        content_id=extraction.content_id,
        extraction_id=extraction.id,
        type=BASELINE,
        graph=graph.as_json(),
        node_count=len(graph.nodes),
        edge_count=len(graph.edges),
    )
    statement = values.on_conflict_do_nothing(
        index_elements=["content_id"], index_where=sa.text("type = 'BASELINE'")
    ).returning(TopicGraph.id)
    return session.scalar(statement) is not None
