"""Dead letters by cause, the letters of one cause, and the number of letters that a change would affect."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from relay.admin.messages.dead import Cause, DeadFilter, DeadLetter, causes, count_dead, dead_letters

LETTERS = 50
LATEST = 5_000  # how many dead letters are examined if to examine all takes too long


@dataclass(frozen=True)
class Letters:
    """Dead letters and their causes.

    Args:
        which: The filters.
        total: The count of dead letters of all these causes.
        letters: The latest letters, if one cause is chosen.
        among: How many of the latest dead letters were examined; ``None``: all.
    """

    which: DeadFilter
    causes: list[Cause]
    total: int
    letters: list[DeadLetter] = field(default_factory=list)
    among: int | None = None


def letters(connection: sa.Connection, which: DeadFilter, among: int | None = None) -> Letters:
    """Return the causes that match the filters, and the latest letters if a cause is chosen."""
    found = causes(connection, which, among=among)
    shown = which.fingerprint or which.ids
    latest = list(dead_letters(connection, which, limit=LETTERS, among=among)) if shown else []
    return Letters(which, found, sum(cause.count for cause in found), latest, among)


def dead_count(connection: sa.Connection, which: DeadFilter, among: int | None = None) -> tuple[int, int | None]:
    """Return the count of the dead letters that match, and how many of the latest were examined; ``None``: all."""
    return count_dead(connection, which, among=among), among
