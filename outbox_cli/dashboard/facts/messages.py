"""Messages: counts by state, and search results."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa

from outbox.tables import tables
from outbox_cli.dashboard.facts.searching import Search
from relay.admin.access.deadline import TooMuch, translated
from relay.admin.messages.choice import Choice, conditions
from relay.admin.messages.listing import MessageRow, list_messages
from relay.admin.messages.outcomes import OUTCOMES
from relay.decide.verdict import WAITING, State

LIMIT = 50
COUNT_AT_MOST = 10_000  # beyond this, a page shows "more than"
LATEST = 20_000  # messages that are looked at if a look at all of them takes too long
LATEST_OF_DESTINATION = 1_000  # if they are searched by destination: no column holds it


@dataclass(frozen=True)
class Count:
    """The count of messages in a state.

    Args:
        state: The state, as in the search; empty: every message that is not settled.
        count: The count, at most `COUNT_AT_MOST`.
        is_more: Whether there may be more.
    """

    state: str
    count: int
    is_more: bool = False


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Args:
        trouble: Why the search was not run.
        is_limited: Whether there may be more messages than are shown.
        among: If only so many of the newest messages were looked at, and those of the key that are set aside.
    """

    search: Search
    counts: list[Count]
    messages: list[MessageRow]
    is_limited: bool = False
    trouble: str | None = None
    among: int | None = None


COUNTED = tuple(state for state in State if state not in WAITING)
SLOW = (State.HELD, State.READY, State.DELIVERED)  # counted last: with a rare filter, all of them are read


def counts(connection: sa.Connection, which: Choice) -> list[Count]:
    """Count the messages that match the other filters, by state.

    A count stops at `COUNT_AT_MOST`. Of the history, only messages that were not delivered are counted; the list of the
    page shows the others. The filter of the destination is left out, because no column holds it. When the time is over,
    the remaining counts are unknown.
    """
    found: dict[str, Count] = {}
    with suppress(TooMuch):
        for state in sorted(COUNTED, key=lambda state: state in SLOW):
            with translated():
                found[state] = _count(connection, which, state)
    return [found.get(state, Count(state, 0, is_more=True)) for state in COUNTED]


def _count(connection: sa.Connection, which: Choice, state: str) -> Count:
    m, d, h = tables().message, tables().delivery, tables().history
    table, where = m, [m.c.state == state]
    source: sa.FromClause = m
    if state in OUTCOMES:
        source = table = h
        where = [h.c.outcome.is_(None) if state == State.DELIVERED else h.c.outcome == state]
    elif state == State.DEAD:
        source, where = d, [d.c.state == State.DEAD]
        if which.destination:
            where.append(d.c.destination == which.destination)
    filters = list(conditions(connection, which, table, h.c.delivered_at if table is h else m.c.created_at))
    if source is d and filters:
        source = d.join(m, m.c.id == d.c.message_id)
    limited = sa.select(sa.literal(1)).select_from(source).where(*where, *filters).limit(COUNT_AT_MOST + 1).subquery()
    count = connection.scalar(sa.select(sa.func.count()).select_from(limited)) or 0
    return Count(state, min(count, COUNT_AT_MOST), count > COUNT_AT_MOST)


def find(connection: sa.Connection, search: Search, among: int | None = None) -> Found:
    """Return the newest messages that match a search; with `among`, only of so many of the newest."""
    rows = list_messages(connection, search.choice, state=search.state, limit=LIMIT, among=among)
    return Found(search, [], rows, is_limited=len(rows) >= LIMIT, among=among)


def find_latest(connection: sa.Connection, search: Search) -> Found:
    """Return the newest messages that match a search, of those that a look takes little time at."""
    return find(connection, search, LATEST if search.destination is None else LATEST_OF_DESTINATION)
