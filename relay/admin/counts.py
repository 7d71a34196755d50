"""Count messages: unsettled messages in one pass, and the history in one pass or by an estimate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import age_s
from relay.admin.messages.outcomes import OUTCOMES
from relay.databases.dialect import dialect_of
from relay.decide.verdict import READ_PATH, UNTAKEN, WAITING, State

COUNT_AT_MOST = 1_000_000  # a table with more rows than this is estimated


class Messages:
    """Counts of the messages that are not in the history yet.

    Args:
        connection: To the outbox's database.

    Attributes:
        unread: (type, count) of the messages in the read path.
        settled: Outcome → messages that are settled, but not yet moved to the history by their owner.
    """

    def __init__(self, connection: sa.Connection) -> None:
        rows = list(connection.execute(_counts()))
        self._waiting = [row for row in rows if _is_waiting(row)]
        self.waiting = _total(self._waiting)
        self.scheduled = _total(row for row in self._waiting if row.state == State.SCHEDULED)
        self.waiting_and_dead = _total(row for row in self._waiting if row.dead)
        self.dead = _total(row for row in rows if row.dead)
        self.unrouted = _total(row for row in rows if row.state == State.UNROUTED)
        self.unread = [(row.type, row.messages) for row in rows if row.state in READ_PATH]
        self.settled: Counter[str] = Counter()
        for row in rows:
            if row.state == State.HELD and not row.dead and not _is_waiting(row):
                self.settled[_outcome(row)] += row.messages

    def oldest_waiting_s(self, at: datetime) -> float | None:
        """Return the age in seconds of the oldest due message; a scheduled message ages from its due time on."""
        since = [row.first_due_at if row.state == State.SCHEDULED else row.oldest_at for row in self._waiting]
        due = [instant for instant in since if instant <= at]
        return age_s(min(due), at) if due else None


def _counts() -> sa.Select[Any]:
    """Return the query that counts all messages by type, by state, and by the outcome of dead or ended deliveries."""
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
    """Return the messages with a delivery that is dead or ended, and the states of their deliveries."""
    d = tables().delivery.c
    of_interest = sa.select(d.message_id).where(d.state.in_([State.DEAD, *UNTAKEN])).distinct().subquery()

    def has(name: str, *states: str) -> sa.Label[Any]:
        return sa.func.max(sa.case((d.state.in_(states), 1), else_=0)).label(name)

    return (
        sa.select(d.message_id, has("dead", "dead"), has("waits", *WAITING), *(has(each, each) for each in OUTCOMES))
        .join(of_interest, of_interest.c.message_id == d.message_id)
        .group_by(d.message_id)
        .subquery()
    )


def _is_waiting(row: sa.Row[Any]) -> bool:
    return row.state in READ_PATH or (row.state == State.HELD and (row.waits or not row.is_marked))


def _outcome(row: sa.Row[Any]) -> str:
    return next(each for each in OUTCOMES if getattr(row, each))


def _total(rows: Iterable[sa.Row[Any]]) -> int:
    return sum(row.messages for row in rows)


def unrouted_types(connection: sa.Connection) -> Sequence[tuple[str, int]]:
    """Return the event types that no subscription wants, with the count of their messages; the most common first."""
    m, count = tables().message.c, sa.func.count()
    query = sa.select(m.type, count).where(m.state == State.UNROUTED).group_by(m.type).order_by(count.desc(), m.type)
    return [(type_, messages) for type_, messages in connection.execute(query)]


class History(NamedTuple):
    """Counts of the messages in the history.

    Args:
        counts: Outcome → messages.
        is_estimate: Whether the count of delivered messages is the planner's estimate.
    """

    counts: Counter[str]
    is_estimate: bool


def history_counts(connection: sa.Connection, *, count_at_most: int | None = None) -> History:
    """Count the history.

    The number of its rows is estimated first: to count a hundred million rows in order to say "about a hundred million"
    would take a minute and evict everything else from the cache. Messages that were not delivered have a separate
    index.

    Args:
        connection: To the outbox's database.
        count_at_most: The number of rows above which the count is estimated; by default `COUNT_AT_MOST`.
    """
    h = tables().history.c
    query = sa.select(h.outcome, sa.func.count()).where(h.outcome.in_(UNTAKEN)).group_by(h.outcome)
    counts: Counter[str] = Counter({row[0]: row[1] for row in connection.execute(query)})
    estimate = dialect_of(connection).estimate_beyond(
        connection, "outbox_history", COUNT_AT_MOST if count_at_most is None else count_at_most
    )
    total = (
        connection.scalar(sa.select(sa.func.count()).select_from(tables().history)) if estimate is None else estimate
    )
    counts[State.DELIVERED] = max((total or 0) - counts.total(), 0)
    return History(counts, estimate is not None)
