"""Mark what an operator changes, so that the owner of its shard finds it.

An owner reads each row once. It finds what operators change behind its cursor by ``txid``: on PostgreSQL that is the
number of the transaction that made the change; on SQLite, which has none, a number above every one before.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.tables import tables

MILLISECONDS_NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


def next_txid(connection: sa.Connection) -> Any:
    """Return what to write into ``txid``. On SQLite, call it in a transaction that holds the write lock already.

    On SQLite, the highest number may just have left the tables together with its row, while the owner remembers it. So
    numbers follow the clock there; where the clock stands still or goes back, they follow each other.
    """
    if connection.dialect.name == "postgresql":
        return sa.func.pg_current_xact_id()
    t = tables()
    highest = [
        connection.scalar(sa.select(sa.func.max(txid)).where(txid > 0)) or 0
        for txid in (t.message.c.txid, t.delivery.c.txid)
    ]
    now_ms = connection.exec_driver_sql(f"SELECT {MILLISECONDS_NOW}").scalar_one()
    return max(now_ms, *(number + 1 for number in highest))


def nudge(connection: sa.Connection) -> None:
    """Have the relays look as soon as this transaction is committed, and not only at their next poll."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify("outbox_wake", sa.func.current_schema())))
