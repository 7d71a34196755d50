"""Find the rows that the database refuses to write, so that all other rows of their batch are written.

A host may add constraints and triggers to the outbox's tables, and foreign keys to them. If one row is refused, its
whole batch fails. If the batch were never settled, each session would send its messages again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class RefusedRow(Exception):
    """A row cannot be written: a constraint or a trigger of the host refuses it, or its bytes are damaged."""


def refused_of(rows: Sequence[T], write: Callable[[Sequence[T]], object]) -> list[tuple[T, str]]:
    """Write rows; if some are refused, write the halves separately. Return the rows that are refused alone, and why.

    Args:
        rows: The rows to write.
        write: Writes rows in one transaction; raises `RefusedRow` if a row is refused.
    """
    try:
        if rows:
            write(rows)
    except RefusedRow as error:
        if len(rows) == 1:
            return [(rows[0], str(error))]
        middle = len(rows) // 2
        return refused_of(rows[:middle], write) + refused_of(rows[middle:], write)
    return []
