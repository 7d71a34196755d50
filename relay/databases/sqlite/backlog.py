"""Read the backlog at a bounded cost: all rows of small tables, windows of large ones, and the oldest rows by index."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import SHARD_COUNT, Instant
from relay.databases.sqlite.sql import backlog as sql
from relay.databases.store.backlog import BacklogReader, Counts

COUNTED = 100_000  # a table with more rows is not counted; the rows in some windows of rowids are
WINDOWS, WIDTH = 2_000, 10
OLDEST_OF_ALL = 8 * SHARD_COUNT  # how many ready messages are read to find the oldest of each destination
NEXT_OF_ALL = 16 * SHARD_COUNT


def estimate_beyond(connection: sa.Connection, table: str, count: int) -> int | None:
    if _rows_up_to(connection, table, count + 1) <= count:
        return None
    lowest, highest = _ends(connection, table)
    return highest - lowest + 1  # deleted rows in between are included


def _rows_up_to(connection: sa.Connection, table: str, limit: int) -> int:
    found: int = connection.execute(sa.text(sql.ROWS.format(table=table)), {"rows": limit}).scalar_one()
    return found


def _ends(connection: sa.Connection, table: str) -> tuple[int, int]:
    lowest, highest = connection.exec_driver_sql(sql.ENDS.format(table=table)).one()
    return lowest, highest


class Backlog(BacklogReader):
    """Counts the rows of the tables; in large tables, only the rows in some windows."""

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection, exact=COUNTED)

    def messages(self) -> Counts:
        return self._counts("outbox_message", sql.COUNTED_MESSAGES, sql.SAMPLED_MESSAGES)

    def deliveries(self) -> Counts:
        return self._counts("outbox_delivery", sql.COUNTED_DELIVERIES, sql.SAMPLED_DELIVERIES)

    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        for statement in (sql.OLDEST_READY, sql.OLDEST_SCHEDULED):
            yield from self._since(statement, rows=OLDEST_OF_ALL)

    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        for each in destinations:
            yield from self._since(sql.OLDEST_PARKED, destination=each)
        yield from self._since(sql.OLDEST_RETRIES, rows=NEXT_OF_ALL)

    def _counts(self, table: str, counted: str, sampled: str) -> Counts:
        if _rows_up_to(self._connection, table, COUNTED + 1) <= COUNTED:
            return Counter({(row[0], row[1]): row.found for row in self._connection.execute(sa.text(counted))})
        self.is_estimate = True
        starts, scale = _windows(*_ends(self._connection, table))
        rows = self._connection.execute(sa.text(sampled), {"starts": json.dumps(starts), "width": WIDTH})
        return Counter({(row[0], row[1]): round(row.found * scale) for row in rows})

    def _since(self, statement: str, **parameters: Any) -> Iterator[tuple[str, datetime]]:
        """Yield the rows of a statement: a type or a destination, and the instant of its oldest message."""
        query = sa.text(statement).columns(since=Instant)
        for row in self._connection.execute(query, parameters):
            yield row[0], row[1]


def _windows(lowest: int, highest: int) -> tuple[list[int], float]:
    """Return where windows of rowids start, and the factor from a count in them to a count in the table.

    The table is divided into equal parts, and each part has one window at a random place. A table whose rowids have
    gaps has fewer rows in each window, so the estimates stay right.
    """
    part = (highest - lowest + 1) / WINDOWS
    slack = max(part - WIDTH, 0)
    starts = [lowest + int(n * part + random.uniform(0, slack)) for n in range(WINDOWS)]  # noqa: S311
    return starts, part / WIDTH
