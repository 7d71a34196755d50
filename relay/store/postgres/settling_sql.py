"""Writing verdicts: each statement with its index (see connection_sql)."""

from __future__ import annotations

from relay.store.contract import LOG_LENGTH, RELEASE_COUNT
from relay.store.postgres.connection_sql import IS_OWNER, IS_REGISTERED

HISTORY = "id, position, type, source, subject, ordering_key, data, headers, created_at"

# Index: outbox_message_pkey, and then the row's address.
_READ = """(
    SELECT m.ctid AS address FROM unnest(%(ids)s::uuid[], %(generations)s::int[]) AS s (id, generation)
    CROSS JOIN LATERAL (
        SELECT m.ctid FROM outbox_message AS m
        WHERE m.id = s.id AND m.generation = s.generation AND m.state <> 'held' OFFSET 0) AS m
)"""

# Index: outbox_message_pkey. An array costs less than a join to the same rows: three quarters, of a whole move.
_NAMED = "m.id = ANY (%(ids)s::uuid[])"
_OF_BATCH = f"{_NAMED} AND m.generation = %(generation)s AND m.state <> 'held'"

# True whoever writes it, so it asks for no ownership. `commit` is `on` or `off`: whether
# the server waits for its disk; see docs/decisions/0003.
SETTLE_PLAIN = f"""
WITH done AS (
    DELETE FROM outbox_message AS m WHERE {_OF_BATCH} RETURNING m.*
)
INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts)
SELECT {HISTORY}, clock_timestamp(), 1 FROM done CROSS JOIN set_config('synchronous_commit', %(commit)s, true)
"""

SETTLE_PLAIN_KEEPING_NONE = f"""
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', %(commit)s, true))
DELETE FROM outbox_message AS m USING relaxed WHERE {_OF_BATCH}
"""

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
UPDATE outbox_message AS m SET state = 'held', due_at = NULL WHERE {_NAMED} AND m.state IN ('ready', 'scheduled')
"""

# Index: both primary keys. What an operator discarded counts as done, and history says so.
FINISH = f"""
WITH done AS (
    DELETE FROM outbox_message AS m
    WHERE {_NAMED} AND NOT EXISTS (
        SELECT FROM outbox_delivery AS d
        WHERE d.message_id = m.id AND d.state NOT IN ('delivered', 'discarded') OFFSET 0)
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

# Held while messages are set aside as unrouted: whoever registers others waits, and then finds them.
SHARE_REGISTRY = "SELECT pg_advisory_xact_lock_shared(%(key)s)"
MARK_UNROUTED = f"""
UPDATE outbox_message AS m SET state = 'unrouted', due_at = NULL
FROM {_READ} AS s WHERE m.ctid = s.address AND {IS_OWNER} AND {IS_REGISTERED}
"""
