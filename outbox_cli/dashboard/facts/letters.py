"""Dead letters: by cause, and those of one cause."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from relay.admin.messages.dead import Cause, DeadFilter, DeadLetter, causes, dead_letters

LETTERS = 50


@dataclass(frozen=True)
class Letters:
    """What died of what.

    Args:
        which: The filters that apply.
        total: How many dead letters there are in all of these causes.
        letters: The latest of them, where one cause is looked at.
    """

    which: DeadFilter
    causes: list[Cause]
    total: int
    letters: list[DeadLetter] = field(default_factory=list)


def letters(connection: sa.Connection, which: DeadFilter) -> Letters:
    """Return the causes that the filters leave, and the latest letters where a cause is named."""
    found = causes(connection, which)
    shown = list(dead_letters(connection, which, limit=LETTERS)) if which.fingerprint or which.ids else []
    return Letters(which, found, sum(cause.count for cause in found), shown)
