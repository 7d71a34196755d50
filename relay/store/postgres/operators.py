"""Operators' queries and housekeeping on PostgreSQL: a `relay.store.dialect.Dialect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from outbox.tables import Id, Instant
from relay.decide.verdict import State
from relay.store.postgres.sql import backlog as sql
from relay.store.postgres.sql.connection import BY_INDEX, OWNERS

if TYPE_CHECKING:
    from relay.store.dialect import Counts, Walk

INDEXES_SHARDS = HAS_PARTITIONS = True
CLOCK: sa.ColumnElement[datetime] = sa.func.clock_timestamp(type_=Instant)
EMITTED = sql.LAST_POSITION
HOLDS_NOTHING: sa.ColumnElement[bool] = sa.literal_column(
    "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = backend_pid)", sa.Boolean
)
UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
PAGES = 256  # pages of a table that are read for a sample; 2 MiB
EXACT = 1_000  # up to this count, a destination's dead letters, and unrouted messages, are counted exactly
OLDEST_OF_EACH_SHARD = 8  # ready messages of a shard that are read to find the oldest of each destination
NEXT_OF_EACH_SHARD = 16
TIMEOUT_MS = 1_000
BUDGET_MS = 60  # for all that is read from indexes, which may hold any number of settled rows; then estimates do
QUERY_CANCELED = "57014"


def begin_snapshot(connection: sa.Connection) -> None:
    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def begin_writing(connection: sa.Connection) -> None:
    """Do nothing: a transaction begins with its first statement."""


def by_index(connection: sa.Connection) -> None:
    connection.exec_driver_sql(BY_INDEX)


def bound(connection: sa.Connection, timeout_s: float) -> None:
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}")
    connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")


def exact(instant: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return instant


def as_stored(at: datetime) -> datetime:
    return at


def as_id(text: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    return sa.case((text.regexp_match(UUID), sa.cast(text, Id)))


def next_txid(connection: sa.Connection) -> Any:
    """Return the id of the transaction that makes the change."""
    return sa.func.pg_current_xact_id()


def nudge(connection: sa.Connection) -> None:
    connection.execute(sa.select(sa.func.pg_notify("outbox_wake", sa.func.current_schema())))


def is_standby(connection: sa.Connection) -> bool:
    return bool(connection.scalar(sa.select(sa.func.pg_is_in_recovery())))


def take_turn(connection: sa.Connection) -> None:
    # It blocks no beat. It needs a right on the table: an advisory lock could be held by any login, forever.
    connection.exec_driver_sql("LOCK TABLE outbox_relay IN SHARE UPDATE EXCLUSIVE MODE NOWAIT")


def lock_registry(connection: sa.Connection) -> None:
    """Exclude other registrations, and sessions that mark messages as unrouted; readers are not held up."""
    if not is_standby(connection):
        connection.exec_driver_sql("LOCK TABLE outbox_destination IN EXCLUSIVE MODE")


def share_registry(connection: sa.Connection) -> None:
    connection.exec_driver_sql("LOCK TABLE outbox_destination IN ROW SHARE MODE")


def estimate_beyond(connection: sa.Connection, table: str, count: int) -> int | None:
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {table}").scalar_one()  # noqa: S608
    estimate = int(plan[0]["Plan"]["Plan Rows"])
    return estimate if estimate > count else None


def owned(connection: sa.Connection, rows: Sequence[Any], beating: Mapping[int, Any]) -> Mapping[int, Any]:
    if is_standby(connection):
        return beating
    return {row.number: row.shards for row in connection.exec_driver_sql(OWNERS)}


def replay_sql() -> Mapping[str, str]:
    from relay.store.postgres.sql.replay import STATEMENTS

    return STATEMENTS


def estimate_replay(connection: sa.Connection, span: Mapping[str, Any]) -> int:
    """Return the planner's estimate."""
    plan = connection.execute(sa.text(replay_sql()["estimate"]), span).scalar_one()
    return int(plan[0]["Plan"]["Plan Rows"])


def ids(ids: Sequence[str]) -> Any:
    return list(ids)


def picked(rows: Sequence[tuple[str, Any, str]]) -> dict[str, Any]:
    ids, ats, news = (list(column) for column in zip(*rows, strict=True))
    return {"ids": ids, "ats": ats, "news": news}


def backlog(connection: sa.Connection, walk: Walk) -> Backlog:
    by_index(connection)
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
    return Backlog(connection, walk)


class Backlog:
    """Samples pages of the tables, and reads the oldest rows from indexes while there is time."""

    def __init__(self, connection: sa.Connection, walk: Walk) -> None:
        self._connection, self._walk = connection, walk
        self._left_ms = float(BUDGET_MS)
        self._oldest: dict[tuple[str, str], datetime] = {}  # of what was sampled
        self._is_whole = True  # all messages were read
        self.is_estimate = False

    def messages(self) -> Counts:
        found, self._is_whole = self._sampled("outbox_message", sql.SAMPLED_MESSAGES)
        return found

    def deliveries(self) -> Counts:
        return self._sampled("outbox_delivery", sql.SAMPLED_DELIVERIES)[0]

    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        is_complete = self._is_whole
        if not is_complete:
            last = self._connection.exec_driver_sql(sql.LAST_POSITION).scalar_one()
            found, is_complete = self._walk(self._first_ready, last)
            yield from ((row.type, row.since) for row in found)
        if self._is_whole or not is_complete:
            yield from self._sampled_in(State.READY)
        scheduled = self._asked(sql.OLDEST_SCHEDULED, rows=OLDEST_OF_EACH_SHARD)
        yield from self._sampled_in(State.SCHEDULED) if scheduled is None else ((row[0], row[1]) for row in scheduled)

    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        for state, statement, parameters in (
            (State.PARKED, sql.OLDEST_PARKED, {"destinations": list(destinations)}),
            (State.RETRY, sql.OLDEST_RETRIES, {"rows": NEXT_OF_EACH_SHARD}),
        ):
            rows = self._asked(statement, **parameters)
            yield from self._sampled_in(state) if rows is None else ((row[0], row[1]) for row in rows)

    def dead(self, destinations: Sequence[str], counted: Counts) -> Mapping[str, int]:
        rows = self._asked(sql.DEAD, destinations=list(destinations), rows=EXACT)
        found = dict.fromkeys(destinations, EXACT) if rows is None else {row[0]: row[1] for row in rows}
        return {name: _larger(count, counted[name, State.DEAD], rows is None) for name, count in found.items()}

    def unrouted(self, counted: int) -> int:
        rows = self._asked(sql.UNROUTED, rows=EXACT)
        return _larger(EXACT if rows is None else rows[0][0], counted, rows is None)

    def _sampled(self, table: str, statement: str) -> tuple[Counts, bool]:
        """Count the rows of some pages, and extrapolate; return also whether these were all pages."""
        pages = self._connection.exec_driver_sql(sql.PAGES.format(table=table)).scalar_one()
        percent = 100.0 if pages <= PAGES else 100.0 * PAGES / pages
        self.is_estimate = self.is_estimate or percent < 100
        rows = self._connection.execute(sa.text(statement), {"percent": percent}).all()
        self._oldest |= {(row[0], row[1]): row.oldest for row in rows if row.oldest is not None}
        return Counter({(row[0], row[1]): round(row.found * 100 / percent) for row in rows}), percent == 100

    def _sampled_in(self, state: State) -> Iterator[tuple[str, datetime]]:
        """Yield the types, or the destinations, of what was sampled in a state, each with the instant of its oldest."""
        for (one, other), since in self._oldest.items():
            if state in (one, other):
                yield (other if one == state else one), since

    def _first_ready(self, shards: Sequence[int], floors: Sequence[int], span: int) -> Sequence[Any] | None:
        parameters = {"shards": list(shards), "floors": list(floors), "span": span, "rows": OLDEST_OF_EACH_SHARD}
        return self._asked(sql.OLDEST_READY, **parameters)

    def _asked(self, statement: str, **parameters: Any) -> Sequence[Any] | None:
        """Return the rows of a statement; ``None`` if that takes longer than what is left of the budget."""
        if self._left_ms < 1:
            return None
        began_at = monotonic()
        try:
            with self._connection.begin_nested():
                self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {self._left_ms:.0f}")
                return self._connection.execute(sa.text(statement), parameters).all()
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != QUERY_CANCELED:
                raise
            self.is_estimate = True
            return None
        finally:
            self._left_ms -= (monotonic() - began_at) * 1000
            self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")


def _larger(exact: int, estimated: int, is_unknown: bool = False) -> int:
    """Return the exact count, or the estimate where counting stopped."""
    if is_unknown:
        return estimated
    return exact if exact < EXACT else max(exact, estimated)
