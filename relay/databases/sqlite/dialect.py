"""Everything that other folders need of SQLite: a `relay.databases.dialect.Dialect`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from outbox.tables import Instant, tables
from relay.databases.sqlite.backlog import Backlog, estimate_beyond
from relay.databases.sqlite.connections import (
    accept_any_bytes,
    async_listener_engine,
    checked,
    engine,
    explained,
    is_refusal,
    limit,
    listener_engine,
    path_of,
)
from relay.databases.sqlite.doctor import examine_server
from relay.databases.sqlite.marks import MARKED, MARKS, has_sign, limit_call, sign, watch_transactions
from relay.databases.sqlite.migration import migrating, obstacle, on_path
from relay.databases.sqlite.sql.replay import BRING_BACK, WRITE_ANEW
from relay.databases.sqlite.store.presence import is_owned

if TYPE_CHECKING:
    from relay.databases.address import Address
    from relay.databases.dialect import Dialect
    from relay.databases.rights import Right
    from relay.databases.sqlite import dialect
    from relay.databases.store.backlog import BacklogReader, Walk
    from relay.databases.store.contract import Store
    from relay.platform.finding import Finding

    _: Dialect = dialect  # mypy checks each member

IS_FILE, HAS_SCHEMAS = True, False
CLOCK: sa.ColumnElement[datetime] = sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", type_=Instant)
EMITTED = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox_message'"
HOLDS_NOTHING: sa.ColumnElement[bool] = sa.true()  # only the last relay can be alive
MILLISECONDS_NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


def refuse_without(connection: sa.Connection, needs: Iterable[Right], *, schema: str | None = None) -> None:
    """Do nothing: there are no roles."""


def others_that_create(connection: sa.Connection) -> None:
    return None


def begin_snapshot(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")  # the driver itself begins no transaction before a SELECT


def begin_writing(connection: sa.Connection) -> None:
    # Take the write lock at once: a transaction that begins by reading fails if another session writes before it does.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def by_index(connection: sa.Connection) -> None:
    """Do nothing: SQLite does so by itself."""


def bound(connection: sa.Connection, timeout_s: float) -> None:
    """Do nothing: there is no server."""


def exact(instant: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the stored text, whose length varies."""
    return sa.type_coerce(instant, sa.Text)


def unindexed(instant: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the text as an expression: a column has an index, by which SQLite would sort for every page."""
    return sa.type_coerce(instant, sa.Text) + ""


def as_stored(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def as_id(text: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    return text


def next_txid(connection: sa.Connection) -> int:
    """Return a number above all earlier ones; there are no transaction ids.

    The row with the highest number may just have been deleted, while the owner remembers that number. So the numbers
    follow the clock, and are never below those in the tables.
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


def take_turn(connection: sa.Connection) -> bool:
    return True  # one relay owns the file


def add_partition(connection: sa.Connection, day: date) -> None:
    """Do nothing: there are no partitions."""


def delete_history(connection: sa.Connection, before: datetime, limit: int) -> int:
    # By rowid, because the history has no primary key.
    history = tables().history
    rowid: sa.ColumnElement[int] = sa.literal_column("rowid")
    old: sa.Select[Any] = sa.select(rowid).select_from(history).where(history.c.delivered_at < before).limit(limit)
    return connection.execute(sa.delete(history).where(rowid.in_(old.scalar_subquery()))).rowcount


def lock_registry(connection: sa.Connection) -> None:
    """Write something, to take the only write lock: the following reads are then current."""
    connection.exec_driver_sql("UPDATE outbox_meta SET schema_version = schema_version")


def share_registry(connection: sa.Connection) -> None:
    """Do nothing: writers exclude each other."""


def owned(connection: sa.Connection, rows: Sequence[Any], beating: Mapping[int, Any]) -> Mapping[int, Any]:
    owned = is_owned(path_of(connection.engine.url))
    last = {row.number: row.shards for row in rows[-1:]}  # there is only one at a time
    return last if owned or (owned is None and last.keys() <= beating.keys()) else {}


def backlog(connection: sa.Connection, walk: Walk) -> BacklogReader:
    return Backlog(connection)


def picked(rows: Sequence[tuple[str, Any, str]]) -> dict[str, Any]:
    return {"picked": json.dumps(rows)}


def store(address: Address, *, lease_s: float, keep_history: bool, notify: bool, skipping: Sequence[str]) -> Store:
    from relay.databases.sqlite.store.session import SqliteStore

    return SqliteStore(address, keep_history=keep_history, skipping=skipping)


def examine_tables(engine: sa.Engine) -> Iterator[Finding]:
    """Yield nothing: the checks of the tables are the same on all databases."""
    yield from ()
