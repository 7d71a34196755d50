"""Mark rows that an operator changes, so the owner of their shard finds them.

An owner reads each row once. It finds changes behind its cursor by ``txid``: on PostgreSQL the id of the transaction
that made the change; on SQLite, which has no transaction ids, a number above all earlier ones.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.tables import tables

MILLISECONDS_NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


def next_txid(connection: sa.Connection) -> Any:
    """Return the value for ``txid``. On SQLite, call this in a transaction that holds the write lock.

    On SQLite, the row with the highest number may just have been deleted, while the owner remembers that number. So
    numbers follow the clock there, and never fall below those in the tables.
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
    """Have the relays look when this transaction is committed, and not only at their next poll."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify("outbox_wake", sa.func.current_schema())))
