"""Estimate counts of a large SQLite table from short windows of its rowids, spread over all of them."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

import sqlalchemy as sa

from relay.store.sqlite.sql.backlog import ENDS

WINDOWS, WIDTH = 2_000, 10


class Sample(NamedTuple):
    """Windows of rowids.

    Args:
        parameters: ``starts`` and ``width``, for a query of `relay.store.sqlite.sql.backlog`.
        scale: The factor from a count in the windows to a count in the table.
    """

    parameters: dict[str, Any]
    scale: float


def sample_of(connection: sa.Connection, table: str) -> Sample:
    """Return windows of a table, one at a random place in each of as many equal parts.

    A table whose rowids have gaps has fewer rows in each window, so the estimates stay right.
    """
    lowest, highest = connection.exec_driver_sql(ENDS.format(table=table)).one()
    return between(lowest, highest)


def between(lowest: int, highest: int) -> Sample:
    """Return windows of the rows between two rowids, both included."""
    part = (highest - lowest + 1) / WINDOWS
    slack = max(part - WIDTH, 0)
    starts = [lowest + int(n * part + random.uniform(0, slack)) for n in range(WINDOWS)]  # noqa: S311
    return Sample({"starts": json.dumps(starts), "width": WIDTH}, part / WIDTH)
