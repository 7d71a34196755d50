"""Messages: counts by state, and search results."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from outbox_cli.dashboard.facts.searching import Search
from relay.admin.access.deadline import TooMuch, translated
from relay.admin.access.queries import matches, since
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


def counts(connection: sa.Connection, search: Search) -> list[Count]:
    """Count the messages that match the other filters, by state.

    A count stops at `COUNT_AT_MOST`. Of the history, only messages that were not delivered are counted; the list of the
    page shows the others. The filter of the destination is left out, because no column holds it. When the time is over,
    the remaining counts are unknown.
    """
    found: dict[str, Count] = {}
    with suppress(TooMuch):
        for state in sorted(COUNTED, key=lambda state: state in SLOW):
            with translated():
                found[state] = _count(connection, search, state)
    return [found.get(state, Count(state, 0, is_more=True)) for state in COUNTED]


def _count(connection: sa.Connection, search: Search, state: str) -> Count:
    t = tables()
    if state in OUTCOMES:
        h = t.history
        where = [h.c.outcome.is_(None) if state == State.DELIVERED else h.c.outcome == state]
        query = (
            sa.select(sa.literal(1)).select_from(h).where(*where, *_filters(connection, search, h, h.c.delivered_at))
        )
    elif state == State.DEAD:
        d = t.delivery
        source = d.join(t.message, t.message.c.id == d.c.message_id) if _needs_message(search) else d
        query = sa.select(sa.literal(1)).select_from(source).where(d.c.state == State.DEAD)
        if search.destination:
            query = query.where(d.c.destination == search.destination)
        if _needs_message(search):
            query = query.where(*_filters(connection, search, t.message, t.message.c.created_at))
    else:
        m = t.message
        query = sa.select(sa.literal(1)).select_from(m).where(m.c.state == state)
        query = query.where(*_filters(connection, search, m, m.c.created_at))
    limited = query.limit(COUNT_AT_MOST + 1).subquery()
    count = connection.scalar(sa.select(sa.func.count()).select_from(limited)) or 0
    return Count(state, min(count, COUNT_AT_MOST), count > COUNT_AT_MOST)


def _needs_message(search: Search) -> bool:
    return any(each is not None for each in (search.type, search.key, search.subject, search.since, search.until))


def _filters(connection: sa.Connection, search: Search, table: sa.Table, at: sa.ColumnElement[Any]) -> list[Any]:
    c, found = table.c, []
    if search.type is not None:
        found.append(matches(c.type, search.type))
    if search.key is not None:
        found.append(c.ordering_key == search.key)
    if search.subject is not None:
        found.append(matches(c.subject, search.subject))
    if search.since is not None:
        found.append(since(connection, at, search.since))
    if search.until is not None:
        found.append(~since(connection, at, search.until))
    return found


def find(connection: sa.Connection, search: Search, among: int | None = None) -> Found:
    """Return the newest messages that match a search; with `among`, only of so many of the newest."""
    rows = list_messages(
        connection,
        state=search.state,
        type_=search.type,
        key=search.key,
        subject=search.subject,
        destination=search.destination,
        since=search.since,
        until=search.until,
        limit=LIMIT,
        among=among,
    )
    return Found(search, [], rows, is_limited=len(rows) >= LIMIT, among=among)


def find_latest(connection: sa.Connection, search: Search) -> Found:
    """Return the newest messages that match a search, of those that a look takes little time at."""
    return find(connection, search, LATEST if search.destination is None else LATEST_OF_DESTINATION)
