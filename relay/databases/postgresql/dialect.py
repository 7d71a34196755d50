"""Everything that other folders need of PostgreSQL: a `relay.databases.dialect.Dialect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from outbox.tables import Id, Instant
from relay.databases.postgresql.backlog import Backlog
from relay.databases.postgresql.connections.damaged_text import accept_any_bytes
from relay.databases.postgresql.connections.engines import async_listener_engine, checked, engine, listener_engine
from relay.databases.postgresql.connections.marks import (
    MARKED,
    MARKS,
    has_sign,
    limit_call,
    sign,
    watch_transactions,
)
from relay.databases.postgresql.connections.refusals import explained, is_refusal
from relay.databases.postgresql.doctor.server import examine_server, examine_tables
from relay.databases.postgresql.migration import migrating, obstacle, on_path
from relay.databases.postgresql.partitions import add_partition, delete_history
from relay.databases.postgresql.rights import others_that_create, refuse_without
from relay.databases.postgresql.sql.backlog import LAST_POSITION
from relay.databases.postgresql.sql.connection import BY_INDEX
from relay.databases.postgresql.sql.ownership import PEERS
from relay.databases.postgresql.sql.replay import BRING_BACK, WRITE_ANEW
from relay.databases.postgresql.sql.settling import SHARE_REGISTRY

if TYPE_CHECKING:
    from relay.databases.address import Address
    from relay.databases.dialect import Dialect
    from relay.databases.postgresql import dialect
    from relay.databases.store.backlog import BacklogReader, Walk
    from relay.databases.store.contract import Store
    from relay.platform.finding import Finding

    _: Dialect = dialect  # mypy checks each member

IS_FILE, HAS_SCHEMAS = False, True
CLOCK: sa.ColumnElement[datetime] = sa.func.clock_timestamp(type_=Instant)
EMITTED = LAST_POSITION
HOLDS_NOTHING: sa.ColumnElement[bool] = sa.literal_column(
    "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = backend_pid)", sa.Boolean
)
LOCK_NOT_AVAILABLE = "55P03"
UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


def limit(connection: sa.Connection, left_s: float | None) -> None:
    """Set the server's limit for a statement, and for each page that is fetched from a cursor."""
    driver: Any = connection.connection.driver_connection
    if left_s is not None:
        driver.execute(f"SET LOCAL statement_timeout = {left_s * 1000:.0f}")


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


def unindexed(instant: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the column as it is: the planner reads in the order of an index (see `by_index`)."""
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


def take_turn(connection: sa.Connection) -> bool:
    # This lock blocks no beat, and needs a right on the table; any login could hold an advisory lock forever.
    try:
        connection.exec_driver_sql("LOCK TABLE outbox_relay IN SHARE UPDATE EXCLUSIVE MODE NOWAIT")
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        return False
    return True


def lock_registry(connection: sa.Connection) -> None:
    """Exclude other registrations, and sessions that mark messages as unrouted; do not hold up readers."""
    if not is_standby(connection):
        connection.exec_driver_sql("LOCK TABLE outbox_destination IN EXCLUSIVE MODE")


def share_registry(connection: sa.Connection) -> None:
    connection.exec_driver_sql(SHARE_REGISTRY)


def estimate_beyond(connection: sa.Connection, table: str, count: int) -> int | None:
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {table}").scalar_one()  # noqa: S608
    estimate = int(plan[0]["Plan"]["Plan Rows"])
    return estimate if estimate > count else None


def owned(connection: sa.Connection, rows: Sequence[Any], beating: Mapping[int, Any]) -> Mapping[int, Any]:
    if is_standby(connection):
        return beating
    return {row.number: row.shards for row in connection.exec_driver_sql(PEERS)}


def backlog(connection: sa.Connection, walk: Walk) -> BacklogReader:
    return Backlog(connection, walk)


def picked(rows: Sequence[tuple[str, Any, str]]) -> dict[str, Any]:
    ids, ats, news = (list(column) for column in zip(*rows, strict=True))
    return {"ids": ids, "ats": ats, "news": news}


def store(address: Address, *, lease_s: float, keep_history: bool, notify: bool, skipping: Sequence[str]) -> Store:
    from relay.databases.postgresql.store.session import PostgresStore

    return PostgresStore(address, lease_s=lease_s, keep_history=keep_history, notify=notify, skipping=skipping)
