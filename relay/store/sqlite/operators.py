"""Operators' queries and housekeeping on SQLite: a `relay.store.dialect.Dialect`."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from outbox.tables import SHARD_COUNT, Instant, tables
from relay.decide.verdict import State
from relay.store.sqlite.presence import is_owned
from relay.store.sqlite.sql import backlog as sql

if TYPE_CHECKING:
    from relay.store.dialect import Counts, Walk

INDEXES_SHARDS = HAS_PARTITIONS = False
CLOCK: sa.ColumnElement[datetime] = sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", type_=Instant)
EMITTED = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox_message'"
HOLDS_NOTHING: sa.ColumnElement[bool] = sa.true()  # of all relays, only the last one can be alive
MILLISECONDS_NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
COUNTED = 100_000  # rows of a table that are counted; of a larger one, those in some windows of rowids are
WINDOWS, WIDTH = 2_000, 10
OLDEST_OF_ALL = 8 * SHARD_COUNT  # ready messages that are read to find the oldest of each destination
NEXT_OF_ALL = 16 * SHARD_COUNT


def begin_snapshot(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")  # the driver itself begins no transaction before a SELECT


def begin_writing(connection: sa.Connection) -> None:
    # At once: a transaction that begins by reading fails if another session writes before it does.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def by_index(connection: sa.Connection) -> None:
    """Do nothing: it does so by itself."""


def bound(connection: sa.Connection, timeout_s: float) -> None:
    """Do nothing: there is no server."""


def exact(instant: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the stored text, whose length varies."""
    return sa.type_coerce(instant, sa.Text)


def as_stored(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def as_id(text: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    return text


def next_txid(connection: sa.Connection) -> int:
    """Return a number above all earlier ones; there are no transaction ids.

    The row with the highest number may just have been deleted, while the owner remembers that number. So numbers follow
    the clock, and never fall below those in the tables.
    """
    t = tables()
    highest = [
        connection.scalar(sa.select(sa.func.max(txid)).where(txid > 0)) or 0
        for txid in (t.message.c.txid, t.delivery.c.txid)
    ]
    now_ms: int = connection.exec_driver_sql(f"SELECT {MILLISECONDS_NOW}").scalar_one()
    return max(now_ms, *(number + 1 for number in highest))


def nudge(connection: sa.Connection) -> None:
    """Do nothing: the relay looks often whether another connection has written."""


def is_standby(connection: sa.Connection) -> bool:
    return False


def take_turn(connection: sa.Connection) -> None:
    """Do nothing: one relay owns the file."""


def lock_registry(connection: sa.Connection) -> None:
    """Write: that takes the only write lock, so the following reads are current."""
    connection.exec_driver_sql("UPDATE outbox_meta SET schema_version = schema_version")


def share_registry(connection: sa.Connection) -> None:
    """Do nothing: writers exclude each other."""


def estimate_beyond(connection: sa.Connection, table: str, count: int) -> int | None:
    rows = connection.execute(sa.text(sql.ROWS.format(table=table)), {"at_most": count + 1}).scalar_one()
    if rows <= count:
        return None
    lowest, highest = connection.exec_driver_sql(sql.ENDS.format(table=table)).one()
    return int(highest - lowest + 1)  # deleted rows in between are included


def owned(connection: sa.Connection, rows: Sequence[Any], beating: Mapping[int, Any]) -> Mapping[int, Any]:
    path = connection.engine.url.database
    owned = is_owned(Path(path)) if path else False
    last = {row.number: row.shards for row in rows[-1:]}  # there is only one at a time
    return last if owned or (owned is None and last.keys() <= beating.keys()) else {}


def replay_sql() -> Mapping[str, str]:
    from relay.store.sqlite.sql.replay import STATEMENTS

    return STATEMENTS


def estimate_replay(connection: sa.Connection, span: Mapping[str, Any]) -> int:
    """Return the estimate of a sample."""
    lowest, highest = connection.execute(sa.text(replay_sql()["ends"]), span).one()
    parameters, scale = _between(lowest, highest)
    found: int = connection.execute(sa.text(replay_sql()["sampled"]), {**span, **parameters}).scalar_one()
    return round(found * scale)


def ids(ids: Sequence[str]) -> Any:
    return json.dumps(ids)


def picked(rows: Sequence[tuple[str, Any, str]]) -> dict[str, Any]:
    return {"picked": json.dumps(rows)}


def backlog(connection: sa.Connection, walk: Walk) -> Backlog:
    return Backlog(connection)


class Backlog:
    """Counts the rows of the tables; of large ones, some windows."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.is_estimate = False

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

    def dead(self, destinations: Sequence[str], counted: Counts) -> Mapping[str, int]:
        return {
            name: self._up_to(COUNTED, sql.DEAD, counted[name, State.DEAD], destination=name) for name in destinations
        }

    def unrouted(self, counted: int) -> int:
        return self._up_to(COUNTED, sql.UNROUTED, counted)

    def _up_to(self, at_most: int, statement: str, estimated: int, **parameters: Any) -> int:
        found: int = self._connection.execute(sa.text(statement), parameters | {"at_most": at_most}).scalar_one()
        return found if found < at_most else max(found, estimated)

    def _counts(self, table: str, counted: str, sampled: str) -> Counts:
        if self._up_to(COUNTED + 1, sql.ROWS.format(table=table), 0) <= COUNTED:
            return Counter({(row[0], row[1]): row.found for row in self._connection.execute(sa.text(counted))})
        self.is_estimate = True
        parameters, scale = _sample_of(self._connection, table)
        rows = self._connection.execute(sa.text(sampled), parameters)
        return Counter({(row[0], row[1]): round(row.found * scale) for row in rows})

    def _since(self, statement: str, **parameters: Any) -> Iterator[tuple[str, datetime]]:
        """Yield the rows of a statement: a type or a destination, and the instant of its oldest message."""
        query = sa.text(statement).columns(since=Instant)
        for row in self._connection.execute(query, parameters):
            yield row[0], row[1]


class _Sample(NamedTuple):
    """Windows of rowids.

    Args:
        parameters: ``starts`` and ``width``, for a query of `relay.store.sqlite.sql.backlog`.
        scale: The factor from a count in the windows to a count in the table.
    """

    parameters: dict[str, Any]
    scale: float


def _sample_of(connection: sa.Connection, table: str) -> _Sample:
    """Return windows of a table, one at a random place in each of as many equal parts.

    A table whose rowids have gaps has fewer rows in each window, so the estimates stay right.
    """
    lowest, highest = connection.exec_driver_sql(sql.ENDS.format(table=table)).one()
    return _between(lowest, highest)


def _between(lowest: int, highest: int) -> _Sample:
    """Return windows of the rows between two rowids, both included."""
    part = (highest - lowest + 1) / WINDOWS
    slack = max(part - WIDTH, 0)
    starts = [lowest + int(n * part + random.uniform(0, slack)) for n in range(WINDOWS)]  # noqa: S311
    return _Sample({"starts": json.dumps(starts), "width": WIDTH}, part / WIDTH)
