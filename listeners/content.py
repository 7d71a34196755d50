"""Queries of the content tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from listeners.tables import BASELINE, Content, Extraction, TopicGraph

PAGE_SIZE = 500


def latest_extraction(session: Session, content_id: str) -> Extraction | None:
    """Return the latest extraction of a content, which is the one that counts; uses the index `extractions_latest`."""
    return session.scalars(
        sa.select(Extraction)
        .where(Extraction.content_id == content_id)
        .order_by(Extraction.created_at.desc(), Extraction.id.desc())
        .limit(1)
    ).first()


def missing_baselines(session: Session) -> Iterator[str]:
    """Yield the ids of all contents that have an extraction but no baseline, in the order of their ids.

    Reads pages of 500 ids, each with a separate query. So memory use stays small, and the caller may commit between two
    ids, for example to emit a message for each id.
    """
    after = ""
    while page := session.scalars(_missing_page(after)).all():
        yield from page
        after = page[-1]


def _missing_page(after: str) -> sa.Select[Any]:
    extracted = sa.exists().where(Extraction.content_id == Content.id)
    baseline = sa.exists().where(TopicGraph.content_id == Content.id, TopicGraph.type == BASELINE)
    return sa.select(Content.id).where(Content.id > after, extracted, ~baseline).order_by(Content.id).limit(PAGE_SIZE)
