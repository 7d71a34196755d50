"""Prepare a migration: wait for another one, up to a limit, and select the schema.

The lock of migrations is an advisory lock, because before the first migration there is no table to lock. Any login may
hold it, so the wait has a limit, and the message names the session.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from outbox.errors import SchemaError
from relay.databases.postgresql.connections.refusals import is_damage
from relay.databases.postgresql.rights import refuse_without
from relay.databases.rights import USAGE
from relay.observe.text import one_line

if TYPE_CHECKING:
    from relay.databases.dialect import Obstacle

MIGRATION_LOCK = 0x6F7574626F78  # "outbox": of twenty migrations at a time, one runs and all others wait
WITHIN_A_REVISION = "-- In your own revision, leave out BEGIN and COMMIT: they would end its transaction."
PATIENCE_S = 60.0
PAUSE_S = 0.1
OBSTACLES: Mapping[str | None, Obstacle] = {
    "42P07": "taken",  # a relation
    "42710": "taken",  # another object
    "42723": "taken",  # a function
    "55P03": "locked",
    "40P01": "locked",
    "42501": "denied",
    "3F000": "denied",
}
HOLDER = f"""
SELECT l.pid, a.usename, a.application_name FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = {MIGRATION_LOCK >> 32} AND l.objid = {MIGRATION_LOCK & 0xFFFFFFFF}
"""  # noqa: S608 (a constant)


@contextmanager
def migrating(engine: sa.Engine, schema: str | None, *, write: bool, lock_timeout_s: float) -> Iterator[sa.Connection]:
    with engine.begin() as connection:
        if write:
            _prepare(connection, schema, lock_timeout_s)
        yield connection


def _prepare(connection: sa.Connection, schema: str | None, lock_timeout_s: float) -> None:
    """Take the migration lock, limit the wait for locks that workers need, and select the schema."""
    _take_turn(connection)
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{lock_timeout_s}s'")
    if schema is not None:
        quoted = connection.dialect.identifier_preparer.quote(schema)
        if schema not in sa.inspect(connection).get_schema_names():
            connection.exec_driver_sql(f"CREATE SCHEMA {quoted}")
    else:
        quoted = connection.scalar(sa.text("SELECT quote_ident(current_schema())"))
        if quoted is None:
            raise SchemaError("the search_path names no existing schema: set OUTBOX_SCHEMA, or create the schema first")
    # Without USAGE, all objects would be created in pg_temp and disappear with the connection.
    refuse_without(connection, [USAGE], schema=schema or connection.scalar(sa.text("SELECT current_schema()")))
    connection.exec_driver_sql(f"SET LOCAL search_path TO {quoted}, pg_temp")


def _take_turn(connection: sa.Connection) -> None:
    """Wait until no other migration runs on this database.

    Raises:
        SchemaError: Another session holds the lock for too long, which any login can do.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})").scalar_one():
        if time.monotonic() > deadline:
            held_by = holder(connection) or "it has just been released"
            raise SchemaError(
                f"another session has held the lock of migrations for {PATIENCE_S:g} s: {held_by}. "
                "If it is not a running migration, end it, and run `outbox db upgrade` again"
            )
        time.sleep(PAUSE_S)


def holder(connection: sa.Connection) -> str | None:
    """Return the session that holds the lock, and the statement that ends it; ``None`` if there is none."""
    held = connection.exec_driver_sql(HOLDER).first()
    if held is None:
        return None
    if held.pid is None:
        return "a prepared transaction (see pg_prepared_xacts, and ROLLBACK PREPARED)"
    name = one_line(held.application_name or "unnamed")
    return f"pid {held.pid} (role {held.usename}, {name}), which SELECT pg_terminate_backend({held.pid}) ends"


def obstacle(error: sa.exc.DBAPIError) -> Obstacle | None:
    """Return which obstacle a migration met: by the error's code, which no language changes, or by its words."""
    if is_damage(error.orig):
        return None
    return OBSTACLES.get(
        getattr(error.orig, "sqlstate", None), "taken" if "already exists" in str(error.orig) else None
    )


@contextmanager
def on_path(context: Any, schema: str | None) -> Iterator[None]:
    """Set the path that functions must pin, and restore it afterwards, because a host's revision may continue.

    pg_temp comes last. Otherwise it is searched first, and a caller's temporary table could replace one of our tables.
    """
    if context.is_offline_mode():
        context.get_context().impl.static_output(WITHIN_A_REVISION)
    context.execute("SELECT set_config('outbox.search_path', current_setting('search_path'), false)")
    if schema is None:
        context.execute("SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', false)")
    else:
        quoted = '"' + schema.replace('"', '""') + '"'
        context.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
        context.execute(f"SET search_path TO {quoted}, pg_temp")
    yield
    context.execute("SELECT set_config('search_path', current_setting('outbox.search_path'), false)")
