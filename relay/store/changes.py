"""Marking what somebody other than its owner changes, so that the owner finds it.

An owner reads each row once. What operators change behind its cursor is found by its stamp: on PostgreSQL by the
transaction that changed it, and on SQLite, which has none, by a number above every one before.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.tables import tables

MILLISECONDS_NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


def stamp(connection: sa.Connection) -> Any:
    """What to write into ``txid``. On SQLite, call it in a transaction that holds the write lock already.

    The highest number may just have left the tables together with its row, and the owner still remember it. So there
    numbers follow the clock, and where that stands still or goes back, each other.
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
    """Have the relays look as soon as this transaction has been committed; they would soon have done so anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify("outbox_wake", sa.func.current_schema())))
