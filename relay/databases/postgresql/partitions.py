"""The partitions of the history: one for each day, created in advance, and dropped when they are too old."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa
import structlog

log = structlog.get_logger("relay")

PARTITION = "outbox_history_%Y%m%d"
PARTITION_LENGTH = len("outbox_history_20260131")  # our partitions may have a suffix after this

# States: attached, pending (a session blocked the detaching), detached (but not dropped).
PARTITIONS = """
SELECT c.relname, CASE i.inhdetachpending WHEN false THEN 'attached' WHEN true THEN 'pending' ELSE 'detached' END
FROM pg_class AS h
JOIN pg_class AS c ON c.relnamespace = h.relnamespace AND c.relkind = 'r' AND c.relowner = h.relowner
  AND c.relname ~ '^outbox_history_[0-9]{8}(_[0-9a-f]{8})?$'
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhparent = h.oid
WHERE h.oid = to_regclass('outbox_history') ORDER BY 1
"""
OWNS = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('outbox_history')"


def add_partition(connection: sa.Connection, day: date) -> None:
    connection.execute(sa.select(sa.func.outbox_add_partition(day)))


def delete_history(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Detach partitions concurrently, and therefore outside a transaction, and drop them."""
    for name, state in connection.exec_driver_sql(PARTITIONS).all():
        day = datetime.strptime(name[:PARTITION_LENGTH], PARTITION).replace(tzinfo=UTC).date()
        if day + timedelta(days=1) < before.astimezone(UTC).date():
            _drop(connection, name, day, state)
    return 0


def _drop(connection: sa.Connection, name: str, day: date, state: str) -> None:
    connection.exec_driver_sql("SET lock_timeout = '2s'")
    owns = connection.exec_driver_sql(OWNS).scalar()
    if owns and state != "detached":
        how = "FINALIZE" if state == "pending" else "CONCURRENTLY"
        connection.exec_driver_sql(f"ALTER TABLE outbox_history DETACH PARTITION {name} {how}")
    connection.execute(sa.select(sa.func.outbox_drop_partition(day)))
    log.info("history_dropped", day=day.isoformat())
