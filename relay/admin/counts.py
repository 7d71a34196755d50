"""Counting messages: each once, in one pass over what is not settled; the history by its index, or by an estimate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import age_s
from relay.admin.messages.outcomes import CANCELLED, DISCARDED, EXPIRED, OPEN, OUTCOMES, UNTAKEN

COUNT_AT_MOST = 1_000_000  # beyond that, the history is estimated
READ_PATH = ("ready", "scheduled")


class Messages:
    """The messages that are not in the history yet, counted.

    Args:
        connection: To the outbox's database.

    Attributes:
        unread: (type, count) of the messages in the read path.
        settled: Outcome → messages of which nothing is left to do, and which their owner has yet to move.
    """

    def __init__(self, connection: sa.Connection) -> None:
        rows = list(connection.execute(_counts()))
        self._waiting = [row for row in rows if _is_waiting(row)]
        self.waiting = _total(self._waiting)
        self.scheduled = _total(row for row in self._waiting if row.state == "scheduled")
        self.waiting_and_dead = _total(row for row in self._waiting if row.dead)
        self.dead = _total(row for row in rows if row.dead)
        self.unrouted = _total(row for row in rows if row.state == "unrouted")
        self.unread = [(row.type, row.messages) for row in rows if row.state in READ_PATH]
        self.settled: Counter[str] = Counter()
        for row in rows:
            if row.state == "held" and not row.dead and not _is_waiting(row):
                self.settled[_outcome(row)] += row.messages

    def oldest_waiting_s(self, at: datetime) -> float | None:
        """Return the age of the oldest that is due; a scheduled message is late from its due time on."""
        since = [row.first_due_at if row.state == "scheduled" else row.oldest_at for row in self._waiting]
        due = [instant for instant in since if instant <= at]
        return age_s(min(due), at) if due else None


def _counts() -> sa.Select[Any]:
    """All messages, by type, by state, and by what is known of the few that are dead or given up somewhere."""
    m = tables().message.c
    marked = _marked()
    flags = [marked.c[name] for name in ("dead", "waits", *OUTCOMES)]
    counts = [
        sa.func.count().label("messages"),
        sa.func.min(m.created_at).label("oldest_at"),
        sa.func.min(m.due_at).label("first_due_at"),
    ]
    is_marked = marked.c.message_id.is_not(None).label("is_marked")
    return (
        sa.select(m.type, m.state, is_marked, *flags, *counts)
        .select_from(tables().message.outerjoin(marked, marked.c.message_id == m.id))
        .group_by(m.type, m.state, is_marked, *flags)
    )


def _marked() -> sa.Subquery:
    """Messages with a delivery that is dead or given up, and what their deliveries are; all others simply wait."""
    d = tables().delivery.c
    of_interest = sa.select(d.message_id).where(d.state.in_(["dead", *UNTAKEN])).distinct().subquery()

    def has(name: str, *states: str) -> sa.Label[Any]:
        return sa.func.max(sa.case((d.state.in_(states), 1), else_=0)).label(name)

    return (
        sa.select(d.message_id, has("dead", "dead"), has("waits", *OPEN), *(has(each, each) for each in OUTCOMES))
        .join(of_interest, of_interest.c.message_id == d.message_id)
        .group_by(d.message_id)
        .subquery()
    )


def _is_waiting(row: sa.Row[Any]) -> bool:
    return row.state in READ_PATH or (row.state == "held" and (row.waits or not row.is_marked))


def _outcome(row: sa.Row[Any]) -> str:
    return next(each for each in OUTCOMES if getattr(row, each))


def _total(rows: Iterable[sa.Row[Any]]) -> int:
    return sum(row.messages for row in rows)


@dataclass(frozen=True)
class HistoryCounts:
    """How many messages in the history ended how.

    Args:
        is_estimate: Whether `delivered` is what the planner believes.
    """

    delivered: int
    discarded: int
    cancelled: int
    expired: int
    is_estimate: bool


def history_counts(connection: sa.Connection) -> HistoryCounts:
    """Count the history.

    On PostgreSQL the planner is asked first: counting a hundred million rows to say "about a hundred million"
    would take a minute and push everything else out of the cache. What was given up has an index of its own.
    """
    h = tables().history.c
    query = sa.select(h.outcome, sa.func.count()).where(h.outcome.in_(UNTAKEN)).group_by(h.outcome)
    untaken: dict[str, int] = {row[0]: row[1] for row in connection.execute(query)}
    estimate = _estimate(connection)
    is_estimate = estimate > COUNT_AT_MOST
    total = estimate if is_estimate else connection.scalar(sa.select(sa.func.count()).select_from(tables().history))
    delivered = max((total or 0) - sum(untaken.values()), 0)
    return HistoryCounts(
        delivered, untaken.get(DISCARDED, 0), untaken.get(CANCELLED, 0), untaken.get(EXPIRED, 0), is_estimate
    )


def _estimate(connection: sa.Connection) -> int:
    if connection.dialect.name != "postgresql":
        return 0
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {tables().history.name}").scalar_one()  # noqa: S608
    return int(plan[0]["Plan"]["Plan Rows"])
