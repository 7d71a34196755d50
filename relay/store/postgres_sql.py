"""The relay's statements on PostgreSQL, each with the index it rides on.

The owning session plans them with sequential scans, hash and merge joins switched off: an ANALYZE that sees an empty
queue must not be able to talk the planner out of the one index each of them needs. For the same reason a row is looked
up by its id behind a fence (`LATERAL (… OFFSET 0)`): else a table believed to be empty is read from one end of its
primary key to the other, and matched with the ids afterwards (measured: 2 to 5 s for a batch).
"""

from __future__ import annotations

from relay.store.contract import DISCARD_COUNT, LOG_LENGTH, PAGE_BYTES, RELEASE_COUNT

MESSAGE = """m.id, m.position, m.shard, m.generation, m.type, m.source, m.subject, m.ordering_key,
    m.data, m.headers, m.created_at"""
DELIVERY = """d.destination, d.generation, d.attempts,
    coalesce(extract(epoch FROM clock_timestamp() - d.first_failed_at), 0)::float8"""
IS_OWNER = "current_setting('outbox.owner', true) = %(token)s"

SESSION_SETTINGS = {
    "idle_session_timeout": "{lease_ms}",
    "idle_in_transaction_session_timeout": "{lease_ms}",
    "statement_timeout": "{lease_ms}",
    "lock_timeout": "{lock_ms}",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
OPTIONAL_SETTINGS = {"client_connection_check_interval": "{check_ms}"}

# ------------------------------------------------------------------- reading

# Index: outbox_message_ready, one descent per shard. The running sum bounds the page in bytes; it runs over the rows
# in the order in which the descents bring them, which spares it a sort.
READ_READY = f"""
SELECT {MESSAGE} FROM (
    SELECT m.*, sum(m.size) OVER (ORDER BY c.ordinality ROWS UNBOUNDED PRECEDING) - m.size AS bytes_before
    FROM unnest(%(shards)s::smallint[], %(cursors)s::bigint[]) WITH ORDINALITY AS c (shard, cursor)
    CROSS JOIN LATERAL (
        SELECT * FROM outbox_message AS m
        WHERE m.shard = c.shard AND m.position > c.cursor AND m.state = 'ready'
        ORDER BY m.position LIMIT %(per_shard)s
    ) AS m
) AS m
WHERE bytes_before < {PAGE_BYTES} LIMIT %(limit)s
"""

# What has become visible since the last look. OFFSET 0 is a fence: without it the planner may turn the conditions on
# shard and position into a scan of outbox_message_ready from its left edge, where settled rows lie until vacuum.
_MESSAGES_SINCE = """(
    SELECT * FROM outbox_message AS m WHERE m.txid >= %(xmax)s::xid8
    UNION ALL
    SELECT * FROM outbox_message AS m WHERE m.txid = ANY (%(running)s::xid8[]) AND m.txid < %(xmax)s::xid8
    OFFSET 0
)"""
_DELIVERIES_SINCE = _MESSAGES_SINCE.replace("outbox_message", "outbox_delivery")

# `floor` is an array over all shards: the cursor, or -1 for a shard of somebody else's.
_IS_LATE = """
    ((m.state = 'ready' AND m.position <= (%(floor)s::bigint[])[m.shard + 1])
     OR (m.state = 'scheduled' AND m.due_at <= %(due)s::timestamptz AND (%(floor)s::bigint[])[m.shard + 1] >= 0))
"""
# Retries are written by their owner alone, which knows them, as it knows what it parked itself.
_IS_FOREIGN = """
    m.state IN ('parked', 'discarded') AND (%(floor)s::bigint[])[m.shard + 1] >= 0 AND m.txid <> ALL (%(own)s::xid8[])
"""

# Indexes: outbox_message_txid, outbox_delivery_txid. The snapshot first, and whether anything came late.
LOOK = f"""
SELECT pg_current_snapshot()::text,
       EXISTS (SELECT FROM {_MESSAGES_SINCE} AS m WHERE {_IS_LATE}),
       EXISTS (SELECT FROM {_DELIVERIES_SINCE} AS m WHERE {_IS_FOREIGN})
"""
SNAPSHOT = "SELECT pg_current_snapshot()::text"

# Index: outbox_message_txid.
READ_LATE = f"SELECT {MESSAGE} FROM {_MESSAGES_SINCE} AS m WHERE {_IS_LATE} LIMIT %(limit)s"

# Index: outbox_message_txid. For when there are more of them than a page holds.
LATE_FLOOR = f"SELECT m.shard, min(m.position) FROM {_MESSAGES_SINCE} AS m WHERE {_IS_LATE} GROUP BY 1"

# Index: outbox_delivery_txid.
LATE_DELIVERIES = f"""
SELECT m.destination, m.shard, min(m.position) FILTER (WHERE m.state = 'parked'),
       array_agg(m.message_id::text) FILTER (WHERE m.state = 'discarded')
FROM {_DELIVERIES_SINCE} AS m WHERE {_IS_FOREIGN} GROUP BY 1, 2
"""

# Index: outbox_delivery_parked, one descent per destination and shard; then outbox_message_pkey.
READ_PARKED = f"""
SELECT {MESSAGE}, {DELIVERY} FROM
    unnest(%(destinations)s::text[], %(shards)s::smallint[], %(cursors)s::bigint[], %(until)s::bigint[])
        AS c (destination, shard, cursor, until)
    CROSS JOIN LATERAL (
        SELECT * FROM outbox_delivery AS d
        WHERE d.destination = c.destination AND d.shard = c.shard AND d.state = 'parked'
          AND d.position > c.cursor AND d.position <= c.until
        ORDER BY d.position LIMIT %(limit)s
    ) AS d
    CROSS JOIN LATERAL (SELECT * FROM outbox_message AS m WHERE m.id = d.message_id OFFSET 0) AS m
ORDER BY d.position LIMIT %(limit)s
"""

# Index: outbox_message_due, one descent per shard.
READ_SCHEDULED = f"""
SELECT {MESSAGE}, m.due_at FROM unnest(%(shards)s::smallint[]) AS c (shard)
CROSS JOIN LATERAL (
    SELECT * FROM outbox_message AS m
    WHERE m.shard = c.shard AND m.state = 'scheduled' AND m.due_at <= %(now)s::timestamptz
      AND (m.due_at, m.position) > (%(due)s::timestamptz, %(position)s)
    ORDER BY m.due_at, m.position LIMIT %(limit)s
) AS m
ORDER BY m.due_at, m.position LIMIT %(limit)s
"""

# Index: outbox_delivery_retry, one descent per shard; then outbox_message_pkey.
READ_RETRIES = f"""
SELECT {MESSAGE}, {DELIVERY}, d.due_at FROM unnest(%(shards)s::smallint[]) AS c (shard)
CROSS JOIN LATERAL (
    SELECT * FROM outbox_delivery AS d
    WHERE d.shard = c.shard AND d.state = 'retry' AND d.due_at <= %(now)s::timestamptz
      AND (d.due_at, d.position, d.destination) > (%(due)s::timestamptz, %(position)s, %(destination)s)
    ORDER BY d.due_at, d.position, d.destination LIMIT %(limit)s
) AS d
CROSS JOIN LATERAL (SELECT * FROM outbox_message AS m WHERE m.id = d.message_id OFFSET 0) AS m
ORDER BY d.due_at, d.position, d.destination LIMIT %(limit)s
"""

# Index: outbox_delivery_key.
HELD_KEYS = """
SELECT d.destination, d.ordering_key, min(d.position) FROM unnest(%(keys)s::text[]) AS k (ordering_key)
CROSS JOIN LATERAL (
    SELECT * FROM outbox_delivery AS d
    WHERE d.ordering_key = k.ordering_key AND d.state <> 'delivered' AND d.state <> 'discarded'
      AND NOT (d.state = 'dead' AND d.destination = ANY (%(skipping)s::text[])) OFFSET 0
) AS d
GROUP BY 1, 2
"""

# Index: outbox_delivery_key, one descent per destination and key.
BLOCKED_KEYS = """
SELECT k.destination, k.ordering_key, d.position
FROM unnest(%(destinations)s::text[], %(keys)s::text[]) AS k (destination, ordering_key)
CROSS JOIN LATERAL (
    SELECT d.position FROM outbox_delivery AS d
    WHERE d.ordering_key = k.ordering_key AND d.destination = k.destination AND d.state <> 'delivered'
      AND (d.state IN ('blocked', 'retry') OR (d.state = 'dead' AND k.destination <> ALL (%(skipping)s::text[])))
    ORDER BY d.position LIMIT 1
) AS d
"""

HAS_DELIVERIES = """
SELECT EXISTS (SELECT FROM unnest(%(shards)s::smallint[]) AS c (shard)
               JOIN outbox_delivery AS d ON d.shard = c.shard WHERE d.state <> 'delivered')
"""

# ------------------------------------------------------------------ settling

HISTORY = "id, position, type, source, subject, ordering_key, data, headers, created_at"

# Index: outbox_message_pkey, and then the row's address.
_READ = """(
    SELECT m.ctid AS address FROM unnest(%(ids)s::uuid[], %(generations)s::int[]) AS s (id, generation)
    CROSS JOIN LATERAL (
        SELECT m.ctid FROM outbox_message AS m
        WHERE m.id = s.id AND m.generation = s.generation AND m.state <> 'held' OFFSET 0) AS m
)"""
_FOUND = """(
    SELECT m.id, m.ctid AS address FROM unnest(%(ids)s::uuid[]) AS s (id)
    CROSS JOIN LATERAL (SELECT m.id, m.ctid FROM outbox_message AS m WHERE m.id = s.id OFFSET 0) AS m
)"""

# True whoever writes it, so it asks for no ownership. `commit` is `on` or `off`: whether
# the server waits for its disk; see docs/decisions/0003.
SETTLE_PLAIN = f"""
WITH done AS (
    DELETE FROM outbox_message AS m USING {_READ} AS s WHERE m.ctid = s.address RETURNING m.*
)
INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts)
SELECT {HISTORY}, clock_timestamp(), 1 FROM done CROSS JOIN set_config('synchronous_commit', %(commit)s, true)
"""

SETTLE_PLAIN_KEEPING_NONE = f"""
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', %(commit)s, true))
DELETE FROM outbox_message AS m USING {_READ} AS s, relaxed WHERE m.ctid = s.address
"""

ASSERT_OWNER = f"SELECT {IS_OWNER}"
TRANSACTION_ID = "SELECT pg_current_xact_id()::text"

# Index: outbox_message_pkey. The ids come sorted, so that two of these never deadlock.
LOCK_MESSAGES = """
SELECT m.id FROM unnest(%(ids)s::uuid[], %(generations)s::int[]) AS s (id, generation)
CROSS JOIN LATERAL (
    SELECT m.id FROM outbox_message AS m
    WHERE m.id = s.id AND (s.generation IS NULL OR m.generation = s.generation) FOR UPDATE) AS m
"""

RULED = """jsonb_to_recordset(%(ruled)s::jsonb) AS r (message_id uuid, destination text, state text, generation int,
    attempts int, delay_s float8, reason text, fingerprint text, log jsonb, is_unknown boolean)"""

# What may be overwritten: the generation that was read. An operator who has intervened raised it.
WRITE_RULED = f"""
INSERT INTO outbox_delivery AS d (message_id, destination, shard, position, ordering_key, state, generation, attempts,
                                  due_at, first_failed_at, reason, fingerprint, log)
SELECT m.id, r.destination, m.shard, m.position, m.ordering_key, r.state, r.generation, r.attempts,
       CASE WHEN r.state = 'retry' THEN clock_timestamp() + r.delay_s * interval '1 second' END,
       CASE WHEN r.attempts > 0 THEN clock_timestamp() END, r.reason, r.fingerprint, coalesce(r.log, '[]')
FROM {RULED} CROSS JOIN LATERAL (SELECT * FROM outbox_message AS m WHERE m.id = r.message_id OFFSET 0) AS m
WHERE NOT r.is_unknown OR NOT EXISTS (
    SELECT FROM outbox_delivery AS k WHERE k.message_id = r.message_id AND k.destination = r.destination OFFSET 0)
ON CONFLICT (message_id, destination) DO UPDATE SET
    state = excluded.state, attempts = excluded.attempts, due_at = excluded.due_at,
    first_failed_at = coalesce(d.first_failed_at, excluded.first_failed_at),
    reason = coalesce(excluded.reason, d.reason), fingerprint = coalesce(excluded.fingerprint, d.fingerprint),
    log = jsonb_path_query_array(d.log || excluded.log, '$[last - {LOG_LENGTH - 1} to last]'),
    changed_at = clock_timestamp(), txid = pg_current_xact_id()
WHERE d.generation = excluded.generation
"""

HOLD_MESSAGES = f"""
UPDATE outbox_message AS m SET state = 'held', due_at = NULL
FROM {_FOUND} AS s WHERE m.ctid = s.address AND m.state IN ('ready', 'scheduled')
"""

# Index: both primary keys. What an operator discarded counts as done, and history says so.
FINISH = f"""
WITH done AS (
    DELETE FROM outbox_message AS m USING {_FOUND} AS s
    WHERE m.ctid = s.address AND NOT EXISTS (
        SELECT FROM outbox_delivery AS d
        WHERE d.message_id = s.id AND d.state NOT IN ('delivered', 'discarded') OFFSET 0)
    RETURNING m.*
), deliveries AS (
    DELETE FROM outbox_delivery AS d USING (
        SELECT d.ctid AS address FROM done
        CROSS JOIN LATERAL (SELECT d.ctid FROM outbox_delivery AS d WHERE d.message_id = done.id OFFSET 0) AS d
    ) AS s WHERE d.ctid = s.address
    RETURNING d.message_id, d.destination, d.state, d.attempts
), summary AS (
    SELECT message_id, max(attempts) AS attempts,
           jsonb_object_agg(destination, jsonb_build_object('state', state, 'attempts', attempts)) AS deliveries
    FROM deliveries GROUP BY message_id
)
INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts, deliveries)
SELECT {", ".join("done." + column for column in HISTORY.split(", "))}, clock_timestamp(),
       coalesce(summary.attempts, 0) + 1, summary.deliveries
FROM done LEFT JOIN summary ON summary.message_id = done.id
WHERE %(keep)s
"""

# Index: outbox_delivery_pkey.
KEYS_OF = """
SELECT DISTINCT d.destination, d.ordering_key
FROM unnest(%(ids)s::uuid[], %(destinations)s::text[]) AS k (id, destination)
CROSS JOIN LATERAL (
    SELECT * FROM outbox_delivery AS d WHERE d.message_id = k.id AND d.destination = k.destination OFFSET 0) AS d
WHERE d.ordering_key IS NOT NULL
"""
PARKED_OF = """
SELECT d.destination, d.shard, min(d.position) FROM unnest(%(ids)s::uuid[]) AS s (id)
CROSS JOIN LATERAL (SELECT * FROM outbox_delivery AS d WHERE d.message_id = s.id OFFSET 0) AS d
WHERE d.state = 'parked' GROUP BY 1, 2
"""

# Index: outbox_delivery_key. A key is free when nothing before its blocked deliveries is still to be done.
RELEASE_KEYS = f"""
UPDATE outbox_delivery AS d SET state = 'parked', changed_at = clock_timestamp(), txid = pg_current_xact_id()
FROM unnest(%(destinations)s::text[], %(keys)s::text[]) AS k (destination, ordering_key)
CROSS JOIN LATERAL (
    SELECT b.message_id, b.destination FROM outbox_delivery AS b
    WHERE b.ordering_key = k.ordering_key AND b.destination = k.destination AND b.state = 'blocked'
      AND NOT EXISTS (
        SELECT FROM outbox_delivery AS h
        WHERE h.ordering_key = k.ordering_key AND h.destination = k.destination AND h.state <> 'delivered'
          AND (h.state IN ('parked', 'retry') OR (h.state = 'dead' AND h.destination <> ALL (%(skipping)s::text[]))))
    ORDER BY b.position LIMIT {RELEASE_COUNT}
) AS b
WHERE d.message_id = b.message_id AND d.destination = b.destination
RETURNING d.destination, d.shard, d.position
"""

# Index: outbox_delivery_blocked, then outbox_delivery_key.
RELEASE_ORPHANS = """
UPDATE outbox_delivery AS d SET state = 'parked', changed_at = clock_timestamp(), txid = pg_current_xact_id()
FROM unnest(%(shards)s::smallint[]) AS c (shard)
CROSS JOIN LATERAL (
    SELECT b.message_id, b.destination FROM outbox_delivery AS b
    WHERE b.shard = c.shard AND b.state = 'blocked' AND NOT EXISTS (
        SELECT FROM outbox_delivery AS h
        WHERE h.ordering_key = b.ordering_key AND h.destination = b.destination AND h.position < b.position
          AND h.state NOT IN ('delivered', 'discarded')
          AND NOT (h.state = 'dead' AND h.destination = ANY (%(skipping)s::text[])))
    OFFSET 0
) AS b
WHERE d.message_id = b.message_id AND d.destination = b.destination
"""

# Index: outbox_delivery_discarded, then both primary keys. What nothing but its discarding holds up any more.
DISCARDED = f"""
SELECT d.message_id, d.destination FROM unnest(%(shards)s::smallint[]) AS c (shard)
JOIN outbox_delivery AS d ON d.shard = c.shard AND d.state = 'discarded'
WHERE EXISTS (SELECT FROM outbox_message AS m WHERE m.id = d.message_id)
  AND NOT EXISTS (SELECT FROM outbox_delivery AS s
                  WHERE s.message_id = d.message_id AND s.state NOT IN ('delivered', 'discarded'))
LIMIT {DISCARD_COUNT}
"""

MARK_UNROUTED = f"""
UPDATE outbox_message AS m SET state = 'unrouted', due_at = NULL
FROM {_READ} AS s WHERE m.ctid = s.address AND {IS_OWNER}
"""

SHOW_HEALTH = f"""
UPDATE outbox_destination SET state = %(state)s, reason = %(reason)s, changed_at = clock_timestamp(),
    paused_by = CASE WHEN %(state)s <> 'healthy' THEN 'failure' END,
    until = clock_timestamp() + %(wait_s)s::float8 * interval '1 second'
WHERE name = %(name)s AND paused_by IS DISTINCT FROM 'operator' AND {IS_OWNER}
"""

# ----------------------------------------------------------------- ownership

SERVER_AGE = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"

LOCK_CLASS = """
SELECT hashtext(n.nspname || '.outbox_message') FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
WHERE t.oid = to_regclass('outbox_message')
"""

REGISTER = """
INSERT INTO outbox_relay (id, backend_pid, release) VALUES (%(id)s, pg_backend_pid(), %(release)s) RETURNING number
"""
UNREGISTER = "DELETE FROM outbox_relay WHERE number = %(number)s"

# Presence locks stand above the shards; a number is reused after a billion relays.
PRESENCE_BASE = 64
PRESENCE_MODULUS = 2**30
LOCK_PRESENCE = f"SELECT pg_try_advisory_lock(%(key)s, {PRESENCE_BASE} + (%(number)s %% {PRESENCE_MODULUS})::int)"

LOCK_SHARDS = f"""
SELECT s.shard FROM unnest(%(shards)s::int[]) AS s (shard) WHERE {IS_OWNER} AND pg_try_advisory_lock(%(key)s, s.shard)
"""
UNLOCK_SHARDS = "SELECT pg_advisory_unlock(%(key)s, s.shard) FROM unnest(%(shards)s::int[]) AS s (shard)"
MARK_SHARDS = f"""
UPDATE outbox_shard AS o SET dirty = %(dirty)s, owner = %(owner)s, started = NULL
FROM unnest(%(shards)s::smallint[]) AS s (shard) WHERE o.shard = s.shard AND {IS_OWNER}
"""

BEAT = f"""
UPDATE outbox_relay SET last_seen_at = clock_timestamp(), shards = %(shards)s::jsonb, wants = %(wants)s
WHERE number = %(number)s AND {IS_OWNER}
"""

# The server's own lock table says who is alive and who holds what; the row says when it last beat.
PEERS = f"""
SELECT l.objid::int, l.pid, r.number, r.id, r.wants,
       extract(epoch FROM clock_timestamp() - r.last_seen_at)::float8
FROM pg_locks AS l
LEFT JOIN outbox_relay AS r
    ON l.objid >= {PRESENCE_BASE} AND r.backend_pid = l.pid
   AND l.objid = {PRESENCE_BASE} + r.number %% {PRESENCE_MODULUS}
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = (%(key)s::bigint & 4294967295)::oid
"""

END_SESSION = "SELECT pg_terminate_backend(%(pid)s)"

REGISTRY = "SELECT name, generation, paused_by, reason, resumed_at FROM outbox_destination WHERE removed_at IS NULL"

# ------------------------------------------------------------------- wake-up

WAKE_STATE = "SELECT last_value FROM outbox_wake"
SET_WAKE = "SELECT setval('outbox_wake', %(value)s)"
