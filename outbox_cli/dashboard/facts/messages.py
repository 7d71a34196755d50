"""The messages that a search finds."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from outbox_cli.dashboard.facts.searching import Search
from relay.admin.messages.listing import MessageRow, list_messages
from relay.decide.verdict import WAITING, State

LIMIT = 50
STATES = tuple(state for state in State if state not in WAITING)  # of messages
LATEST = 20_000  # how many messages are examined if to examine all takes too long
LATEST_OF_DESTINATION = 1_000  # the same for a search by destination, which no column holds


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Args:
        counts: State → the count of messages in this state in the whole outbox, as far as the overview counts them.
        trouble: Why the search was not run.
        is_limited: Whether there may be more messages than are shown.
        among: How many of the newest messages were examined, beside those of the key that are set aside; ``None``: all.
    """

    search: Search
    counts: dict[str, int | None]
    messages: list[MessageRow]
    is_limited: bool = False
    trouble: str | None = None
    among: int | None = None


def find(connection: sa.Connection, search: Search, among: int | None = None) -> Found:
    """Return the newest messages that match a search; with `among`, examine only that number of the newest."""
    rows = list_messages(connection, search.choice, state=search.state, limit=LIMIT, among=among)
    return Found(search, {}, rows, is_limited=len(rows) >= LIMIT, among=among)


def find_latest(connection: sa.Connection, search: Search) -> Found:
    """Return the newest messages that match a search, among as many as can be examined quickly."""
    return find(connection, search, LATEST if search.choice.destination is None else LATEST_OF_DESTINATION)
