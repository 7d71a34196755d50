"""Find messages and deliveries: each statement with its index (see `connection`)."""

from __future__ import annotations

from relay.databases.sqlite.sql.connection import IS_REGISTERED, NOW
from relay.databases.store.rows import MESSAGE_COLUMNS
from relay.databases.store.state_lists import GIVEN_UP, UNTAKEN

MESSAGE = ", ".join("NULL" if name == "address" else f"m.{name}" for name in MESSAGE_COLUMNS)

DELIVERY = f"""d.destination, d.generation, d.attempts,
    coalesce((julianday({NOW}) - julianday(d.first_failed_at)) * 86400.0, 0.0)"""

REGISTERED = f"SELECT {IS_REGISTERED}"

# Index: outbox_message_ready. These queries return rows one by one in the order of their index, each with its size at
# the end, until a page is full (see `OwningConnection.page`): further rows are not read.
READ_READY = f"""
SELECT {MESSAGE}, m.size FROM outbox_message AS m
WHERE m.state = 'ready' AND m.position > :cursor AND {IS_REGISTERED} ORDER BY m.position LIMIT :limit
"""

# Index: outbox_message_txid.
READ_LATE = f"""
SELECT {MESSAGE}, m.size FROM outbox_message AS m
WHERE m.txid > :since AND m.txid > 0 AND m.state = 'ready' AND m.position <= :cursor AND {IS_REGISTERED}
ORDER BY m.position LIMIT :limit
"""

# Index: outbox_delivery_txid.
LATE_DELIVERIES = f"""
SELECT d.message_id, d.destination, d.shard, d.position, d.state FROM outbox_delivery AS d
WHERE d.txid > :since AND d.txid > 0 AND d.state IN ('parked', {GIVEN_UP})
"""

LAST_TXID = """
SELECT max(coalesce((SELECT max(txid) FROM outbox_message WHERE txid > 0), 0),
           coalesce((SELECT max(txid) FROM outbox_delivery WHERE txid > 0), 0))
"""

# Index: outbox_delivery_parked, then outbox_message's id.
READ_PARKED = f"""
SELECT {MESSAGE}, {DELIVERY}, m.size FROM outbox_delivery AS d JOIN outbox_message AS m ON m.id = d.message_id
WHERE d.destination = :destination AND d.state = 'parked' AND d.position > :cursor AND d.position <= :until
ORDER BY d.position LIMIT :limit
"""

# Index: outbox_message_due.
READ_SCHEDULED = f"""
SELECT {MESSAGE}, m.size FROM outbox_message AS m
WHERE m.state = 'scheduled' AND m.due_at <= {NOW} AND (m.due_at, m.position) > (:due, :position) AND {IS_REGISTERED}
ORDER BY m.due_at, m.position LIMIT :limit
"""

# Index: outbox_message_due. These rows were written after the last look, and are due before the rows that were read
# then. Left of them there are only rows that are in memory, because settled rows are deleted.
READ_SCHEDULED_LATE = f"""
SELECT {MESSAGE}, m.size FROM outbox_message AS m
WHERE m.state = 'scheduled' AND (m.due_at, m.position) <= (:due, :position) AND m.due_at <= {NOW}
  AND m.position > :newest AND {IS_REGISTERED}
ORDER BY m.position LIMIT :limit
"""
TIME = f"SELECT {NOW}"
NEWEST = "SELECT coalesce(max(position), 0) FROM outbox_message"

# Index: outbox_delivery_retry. Strictly before now, because another retry may still be written within this millisecond.
READ_RETRIES = f"""
SELECT {MESSAGE}, {DELIVERY}, d.due_at, m.size FROM outbox_delivery AS d JOIN outbox_message AS m ON m.id = d.message_id
WHERE d.state = 'retry' AND d.due_at < {NOW} AND (d.due_at, d.position, d.destination) > (:due, :position, :destination)
ORDER BY d.due_at, d.position, d.destination LIMIT :limit
"""

# Index: outbox_delivery_key, one descent per destination and key.
HELD_KEYS = f"""
SELECT destination, ordering_key, position FROM (
    SELECT n.value AS destination, k.value AS ordering_key, (
        SELECT d.position FROM outbox_delivery AS d
        WHERE d.ordering_key = k.value AND d.ordering_key IS NOT NULL AND d.destination = n.value
          AND d.state <> 'delivered' AND d.state NOT IN ({UNTAKEN})
          AND NOT (d.state = 'dead' AND n.value IN (SELECT value FROM json_each(:skipping)))
        ORDER BY d.position LIMIT 1) AS position
    FROM json_each(:keys) AS k CROSS JOIN json_each(:destinations) AS n
) WHERE position IS NOT NULL
"""

# Index: outbox_delivery_key, one descent per destination and key.
BLOCKED_KEYS = """
SELECT destination, ordering_key, position FROM (
    SELECT k.value ->> 0 AS destination, k.value ->> 1 AS ordering_key, (
        SELECT d.position FROM outbox_delivery AS d
        WHERE d.ordering_key = k.value ->> 1 AND d.ordering_key IS NOT NULL AND d.destination = k.value ->> 0
          AND d.state <> 'delivered' AND (d.state IN ('blocked', 'retry')
               OR (d.state = 'dead' AND d.destination NOT IN (SELECT value FROM json_each(:skipping))))
        ORDER BY d.position LIMIT 1) AS position
    FROM json_each(:pairs) AS k
) WHERE position IS NOT NULL
"""
