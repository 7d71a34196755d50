"""Prepare a migration of an SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from relay.databases.sqlite.connections import BUSY_TIMEOUT_S

if TYPE_CHECKING:
    from relay.databases.dialect import Obstacle

SAYS_TAKEN = ("already exists", "there is already")


@contextlib.contextmanager
def migrating(engine: sa.Engine, schema: str | None, *, write: bool, lock_timeout_s: float) -> Iterator[sa.Connection]:
    """Include DDL in the transaction, which the driver would not do by itself, and let writers wait for each other."""

    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        if write:
            _switch_to_wal(connection)

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN"))
    with engine.begin() as connection:
        yield connection


def _switch_to_wal(connection: Any) -> None:
    """Switch to WAL; retry, because SQLite does not wait for a lock here."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def obstacle(error: sa.exc.DBAPIError) -> Obstacle | None:
    return "taken" if any(each in str(error.orig) for each in SAYS_TAKEN) else None


def on_path(context: Any, schema: str | None) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()
