"""Dead letters by cause, and the letters of one cause."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from relay.admin.messages.dead import Cause, DeadFilter, DeadLetter, causes, dead_letters

LETTERS = 50


@dataclass(frozen=True)
class Letters:
    """Dead letters and their causes.

    Args:
        which: The filters.
        total: The count of dead letters of all these causes.
        letters: The latest letters, if one cause is chosen.
    """

    which: DeadFilter
    causes: list[Cause]
    total: int
    letters: list[DeadLetter] = field(default_factory=list)


def letters(connection: sa.Connection, which: DeadFilter) -> Letters:
    """Return the causes that match the filters, and the latest letters if a cause is chosen."""
    found = causes(connection, which)
    shown = list(dead_letters(connection, which, limit=LETTERS)) if which.fingerprint or which.ids else []
    return Letters(which, found, sum(cause.count for cause in found), shown)
