"""The queries of a sample of the backlog. None of them reads a whole table, for any number of rows."""

from __future__ import annotations

SHARDS = "(SELECT n::smallint AS shard FROM generate_series(0, 63) AS n) AS s"

# The size of the file, which the server knows without reading it.
PAGES = "SELECT pg_relation_size(to_regclass('{table}')) / current_setting('block_size')::bigint"

# No index: these read random pages, at most as many as the caller requests.
SAMPLED_MESSAGES = """
SELECT state, type, count(*) AS found, min(greatest(created_at, due_at))
       FILTER (WHERE state = 'ready' OR due_at <= clock_timestamp()) AS oldest
FROM outbox_message TABLESAMPLE SYSTEM (:percent) GROUP BY state, type
"""
SAMPLED_DELIVERIES = """
SELECT destination, state, count(*) AS found, min(coalesce(first_failed_at, changed_at)) AS oldest
FROM outbox_delivery TABLESAMPLE SYSTEM (:percent) GROUP BY destination, state
"""

LAST_POSITION = "SELECT last_value FROM outbox_message_position_seq"

# Index: outbox_message_ready, one descent per shard, and a bounded number of positions from its floor on. The index
# keeps the entries of settled messages until vacuum.
OLDEST_READY = """
SELECT m.shard, m.position, m.type, greatest(m.created_at, m.due_at) AS since
FROM unnest(CAST(:shards AS smallint[]), CAST(:floors AS bigint[])) AS f(shard, floor)
CROSS JOIN LATERAL (
    SELECT m.shard, m.position, m.type, m.created_at, m.due_at FROM outbox_message AS m
    WHERE m.state = 'ready' AND m.shard = f.shard AND m.position >= f.floor AND m.position < f.floor + :span
    ORDER BY m.shard, m.position LIMIT :rows
) AS m
"""

# Index: outbox_message_due, one descent per shard.
OLDEST_SCHEDULED = f"""
SELECT m.type, m.due_at AS since FROM {SHARDS}
CROSS JOIN LATERAL (
    SELECT m.type, m.due_at FROM outbox_message AS m
    WHERE m.state = 'scheduled' AND m.shard = s.shard AND m.due_at <= clock_timestamp()
    ORDER BY m.shard, m.due_at LIMIT :rows
) AS m
"""

# Index: outbox_delivery_parked, one descent per destination and shard; then outbox_message_pkey.
OLDEST_PARKED = f"""
SELECT d.destination, min(greatest(m.created_at, m.due_at)) AS since
FROM unnest(CAST(:destinations AS text[])) AS d(destination) CROSS JOIN {SHARDS}
CROSS JOIN LATERAL (
    SELECT p.message_id FROM outbox_delivery AS p
    WHERE p.state = 'parked' AND p.destination = d.destination AND p.shard = s.shard
    ORDER BY p.destination, p.shard, p.position LIMIT 1
) AS p
CROSS JOIN LATERAL (
    SELECT m.created_at, m.due_at FROM outbox_message AS m WHERE m.id = p.message_id OFFSET 0
) AS m
GROUP BY d.destination
"""

# Index: outbox_delivery_retry, the next rows of each shard.
OLDEST_RETRIES = f"""
SELECT r.destination, min(r.since) AS since FROM {SHARDS}
CROSS JOIN LATERAL (
    SELECT r.destination, coalesce(r.first_failed_at, r.changed_at) AS since FROM outbox_delivery AS r
    WHERE r.state = 'retry' AND r.shard = s.shard ORDER BY r.shard, r.due_at, r.position LIMIT :rows
) AS r
GROUP BY r.destination
"""
