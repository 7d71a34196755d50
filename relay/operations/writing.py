"""Changing things by hand: short transactions, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

BATCH = 500  # rows that one transaction changes at most: nobody waits long for a lock of ours


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that is going to write."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # At once: a transaction that begins by reading cannot be made to write while somebody else has written.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()
