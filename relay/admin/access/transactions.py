"""Change data by hand, in short transactions, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa

BATCH = 500  # the maximum number of rows that one transaction changes: other sessions never wait long for our locks
DEADLOCK, TRIES = "40P01", 5

T = TypeVar("T")


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction that will write."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # At once: a transaction that begins by reading fails if another session writes before it does.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


def insisting(work: Callable[[], T]) -> T:
    """Do the work; repeat it if the server ends it as a deadlock. Relays may lock the same rows in another order."""
    for tries_left in reversed(range(TRIES)):
        try:
            return work()
        except sa.exc.DBAPIError as error:
            if not tries_left or getattr(error.orig, "sqlstate", None) != DEADLOCK:
                raise
    raise AssertionError("unreachable")
