"""The queries of a sample of the backlog on SQLite: up to a limit, or from the left of an index."""

from __future__ import annotations

COUNTED_MESSAGES = """
SELECT state, type, count(*) AS found FROM (SELECT state, type FROM outbox_message LIMIT :counted)
GROUP BY state, type
"""
COUNTED_DELIVERIES = """
SELECT destination, state, count(*) AS found FROM (SELECT destination, state FROM outbox_delivery LIMIT :counted)
GROUP BY destination, state
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
