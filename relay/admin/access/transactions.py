"""Changing things by hand: short transactions, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa

BATCH = 500  # rows that one transaction changes at most: nobody waits long for a lock of ours
DEADLOCK, TRIES = "40P01", 5

T = TypeVar("T")


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that is going to write."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # At once: a transaction that begins by reading cannot be made to write while somebody else has written.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


def insisting(work: Callable[[], T]) -> T:
    """Do it, again if the server has ended it to resolve a deadlock: relays may lock the same rows in another order."""
    for tries_left in reversed(range(TRIES)):
        try:
            return work()
        except sa.exc.DBAPIError as error:
            if not tries_left or getattr(error.orig, "sqlstate", None) != DEADLOCK:
                raise
    raise AssertionError("unreachable")
