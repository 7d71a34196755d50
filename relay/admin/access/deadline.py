"""Bound the time that all queries of one question take together: before each query, set its limit to the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import sqlalchemy as sa

from relay.databases.dialect import dialect_of
from relay.databases.error_codes import means

UNTIL = "answered until"  # a key in `Connection.info`


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
        connection: A connection in a transaction, of an engine that is watched.
        seconds: The time that all queries together may take.

    Raises:
        TooMuch: They have taken longer, and another query begins. A query that is running is ended: see `translated`.
    """
    connection.info[UNTIL] = monotonic() + seconds
    try:
        yield
    finally:
        connection.info.pop(UNTIL, None)
        dialect_of(connection).limit(connection, None)


@contextmanager
def translated() -> Iterator[None]:
    """Raise `TooMuch` for the error of a query, or of `limit`, that was ended because it took too long."""
    try:
        yield
    except Exception as error:  # of SQLAlchemy or of the driver: `limit` uses the driver
        if means(error, "INTERRUPTED"):
            raise TooMuch from error
        raise


def _shorten(connection: sa.Connection, *_: Any) -> None:
    until = connection.info.get(UNTIL)
    if until is None:
        return
    left_s = until - monotonic()
    if left_s < 0.001:
        raise TooMuch
    dialect_of(connection).limit(connection, left_s)
