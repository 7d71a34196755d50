"""Dead letters by cause, and the letters of one cause."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from relay.admin.access.queries import by_index
from relay.admin.messages.dead import Cause, DeadFilter, DeadLetter, causes, count_dead, dead_letters

LETTERS = 50
LATEST = 10_000  # dead letters whose messages are looked up if a type is chosen


@dataclass(frozen=True)
class Letters:
    """Dead letters and their causes.

    Args:
        which: The filters.
        total: The count of dead letters of all these causes.
        letters: The latest letters, if one cause is chosen.
        among: If the messages of so many dead letters were looked up, the latest ones, and not of all; else ``None``.
    """

    which: DeadFilter
    causes: list[Cause]
    total: int
    letters: list[DeadLetter] = field(default_factory=list)
    among: int | None = None


def letters(connection: sa.Connection, which: DeadFilter) -> Letters:
    """Return the causes that match the filters, and the latest letters if a cause is chosen."""
    among = None
    if which.type_ is not None:
        by_index(connection)
        if count_dead(connection, replace(which, type_=None), at_most=LATEST + 1) > LATEST:
            among = LATEST
    found = causes(connection, which, among=among)
    shown = list(dead_letters(connection, which, limit=LETTERS)) if which.fingerprint or which.ids else []
    return Letters(which, found, sum(cause.count for cause in found), shown, among)
