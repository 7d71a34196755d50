"""The queries of a sample of the backlog on SQLite: they read a few rows, or from the left edge of an index."""

from __future__ import annotations

# Up to a limit, from the smallest index.
ROWS = "SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT :rows)"
# Two subqueries, because SQLite reads all rows for both values at once.
ENDS = "SELECT coalesce((SELECT min(rowid) FROM {table}), 0), coalesce((SELECT max(rowid) FROM {table}), -1)"

COUNTED_MESSAGES = "SELECT state, type, count(*) AS found FROM outbox_message GROUP BY state, type"
COUNTED_DELIVERIES = "SELECT destination, state, count(*) AS found FROM outbox_delivery GROUP BY destination, state"

# The rows of some short windows of rowids.
SAMPLED_MESSAGES = """
SELECT m.state, m.type, count(*) AS found
FROM json_each(:starts) AS w CROSS JOIN outbox_message AS m ON m.position >= w.value AND m.position < w.value + :width
GROUP BY m.state, m.type
"""
SAMPLED_DELIVERIES = """
SELECT d.destination, d.state, count(*) AS found
FROM json_each(:starts) AS w CROSS JOIN outbox_delivery AS d ON d.rowid >= w.value AND d.rowid < w.value + :width
GROUP BY d.destination, d.state
"""

# Index: outbox_message_ready.
OLDEST_READY = (
    "SELECT type, created_at AS since FROM outbox_message WHERE state = 'ready' ORDER BY position LIMIT :rows"
)

# Index: outbox_message_due.
OLDEST_SCHEDULED = """
SELECT type, due_at AS since FROM outbox_message
WHERE state = 'scheduled' AND due_at <= strftime('%Y-%m-%d %H:%M:%f', 'now') ORDER BY due_at LIMIT :rows
"""

# Index: outbox_delivery_parked, then the primary key of outbox_message.
OLDEST_PARKED = """
SELECT p.destination, max(m.created_at, coalesce(m.due_at, m.created_at)) AS since
FROM outbox_delivery AS p JOIN outbox_message AS m ON m.id = p.message_id
WHERE p.state = 'parked' AND p.destination = :destination ORDER BY p.position LIMIT 1
"""

# Index: outbox_delivery_retry.
OLDEST_RETRIES = """
SELECT destination, coalesce(first_failed_at, changed_at) AS since FROM outbox_delivery
WHERE state = 'retry' ORDER BY due_at LIMIT :rows
"""
