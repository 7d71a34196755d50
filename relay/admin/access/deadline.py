"""Bound the time that all queries of one question take together.

PostgreSQL bounds each statement, and each page that is fetched from a cursor; so before each statement its bound is set
to the time that is left. SQLite bounds nothing, but asks every few thousand steps whether to go on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import sqlalchemy as sa

QUERY_CANCELED = "57014"
IN_FAILED_TRANSACTION = "25P02"  # a savepoint's rollback was canceled, too
STEPS = 5_000  # of SQLite's virtual machine: less than a millisecond
UNTIL = "answered until"  # in the information about a connection


class TooMuch(Exception):
    """A question takes longer than it may."""

    def __init__(self, text: str = "this takes too long: try a filter, or a shorter time") -> None:
        super().__init__(text)


def watch(engine: sa.Engine) -> None:
    """Make `within` work on the connections of an engine."""
    sa.event.listen(engine, "before_cursor_execute", _shorten)


@contextmanager
def within(connection: sa.Connection, seconds: float) -> Iterator[None]:
    """Bound the time of the queries in this block.

    Args:
        connection: In a transaction, of an engine that is watched.
        seconds: The time that all of them together may take.

    Raises:
        TooMuch: They have taken longer, and another one begins. One that runs is ended: see `translated`.
    """
    until = monotonic() + seconds
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.set_progress_handler(lambda: monotonic() > until, STEPS)
    connection.info[UNTIL] = until
    try:
        yield
    finally:
        connection.info.pop(UNTIL, None)
        if isinstance(driver, sqlite3.Connection):
            driver.set_progress_handler(None, 0)


@contextmanager
def translated() -> Iterator[None]:
    """Raise `TooMuch` for the error of a query that was ended because it took too long."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        if _was_interrupted(error.orig):
            raise TooMuch from error
        raise


def _was_interrupted(error: Any) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
    return getattr(error, "sqlstate", None) in (QUERY_CANCELED, IN_FAILED_TRANSACTION)


def _shorten(connection: sa.Connection, *_: Any) -> None:
    until = connection.info.get(UNTIL)
    if until is None:
        return
    left_ms = int((until - monotonic()) * 1000)
    if left_ms < 1:
        raise TooMuch
    driver: Any = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        driver.execute(f"SET LOCAL statement_timeout = {left_ms}")
