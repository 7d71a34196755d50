"""Serialise migrations: wait for another migration, up to a limit, and name a session that blocks.

The lock is an advisory lock, because before the first migration there is no table to lock. Any login may hold it, so
the wait has a limit, and the message names the session.
"""

from __future__ import annotations

import time

import sqlalchemy as sa

from outbox.errors import SchemaError
from relay.observe.text import one_line

MIGRATION_LOCK = 0x6F7574626F78  # "outbox": of twenty at a time, one migrates and the others wait
PATIENCE_S = 60.0
PAUSE_S = 0.1
HOLDER = f"""
SELECT l.pid, a.usename, a.application_name FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = {MIGRATION_LOCK >> 32} AND l.objid = {MIGRATION_LOCK & 0xFFFFFFFF}
"""  # noqa: S608 (a constant)


def take_turn(connection: sa.Connection) -> None:
    """Wait until no other migration runs on this database.

    Raises:
        SchemaError: Another session holds the lock for too long; any login can.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})").scalar_one():
        if time.monotonic() > deadline:
            raise SchemaError(
                f"another session has held the lock of migrations for {PATIENCE_S:g} s: {_holder(connection)}. "
                "If it is not a running migration, end it, and run `outbox db upgrade` again"
            )
        time.sleep(PAUSE_S)


def _holder(connection: sa.Connection) -> str:
    """Return the session that holds the lock, and the statement that ends it."""
    held = connection.exec_driver_sql(HOLDER).first()
    if held is None:
        return "it has just been released"
    if held.pid is None:
        return "a prepared transaction (see pg_prepared_xacts, and ROLLBACK PREPARED)"
    name = one_line(held.application_name or "unnamed")
    return f"pid {held.pid} (role {held.usename}, {name}), which SELECT pg_terminate_backend({held.pid}) ends"
