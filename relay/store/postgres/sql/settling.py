"""Writing verdicts: each statement with its index (see connection_sql)."""

from __future__ import annotations

from relay.store.contract import LOG_LENGTH, RELEASE_COUNT
from relay.store.postgres.sql.connection import IS_OWNER, IS_REGISTERED
from relay.store.state_lists import FINAL, GIVEN_UP, UNTAKEN

HISTORY = "id, position, type, source, subject, ordering_key, data, headers, created_at"

# Index: outbox_message_pkey. An array costs less than a join to the same rows: three quarters, of a whole move.
_NAMED = "m.id = ANY (%(ids)s::uuid[])"

# No index: a row is found where it lay when it was read, which spares a descent each, a fifth of the move. Whether it
# is still that message, its id says, and nothing else can: a table that was truncated begins anew with its positions.
# IS TRUE keeps the ids a hash table; else the planner makes a join of them, with nothing but loops to do it by.
_LYING = """m.ctid = ANY (%(addresses)s::tid[]) AND (m.id IN (SELECT unnest(%(ids)s::uuid[]))) IS TRUE"""


def _settle_plain(which: str, *, keep_history: bool) -> str:
    """Return the statement that settles plain messages: true regardless of the owner, so it asks for no ownership.

    `commit` is `on` or `off`: whether the server waits for its disk; see docs/decisions/0003.
    """
    delete = f"""
    DELETE FROM outbox_message AS m
    WHERE {which} AND m.generation = %(generation)s AND m.state <> 'held'
        AND (SELECT set_config('synchronous_commit', %(commit)s, true)) IS NOT NULL"""
    if not keep_history:
        return delete
    return f"""
WITH done AS ({delete}
    RETURNING {HISTORY}
)
INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts, registered)
SELECT {HISTORY}, statement_timestamp(), 1, %(registered)s::int FROM done
"""


SETTLE_PLAIN = _settle_plain(_LYING, keep_history=True)
SETTLE_PLAIN_KEEPING_NONE = _settle_plain(_LYING, keep_history=False)
SETTLE_MOVED = _settle_plain(_NAMED, keep_history=True)
SETTLE_MOVED_KEEPING_NONE = _settle_plain(_NAMED, keep_history=False)

# What became of deliveries, if this is still the owner: the transaction's id, which messages there were, and what is
# parked now. The ids come sorted, so that two of these never deadlock. What may be overwritten is the generation that
# was read: an operator who has intervened raised it. What was cancelled while it was under way is delivered if it was
# taken, and else stays cancelled. Of a delivery that was read back, the message is held; where it is not, a server that
# crashed has forgotten that, and the siblings of the delivery with it.
# Index: both primary keys.
_WRITE_RULED = f"""
WITH owner AS MATERIALIZED (
    SELECT pg_current_xact_id()::text AS txid FROM set_config('synchronous_commit', %(commit)s, true) WHERE {IS_OWNER}
), known AS MATERIALIZED (
    SELECT m.*, s.ruled
    FROM owner, jsonb_to_recordset(%(messages)s::jsonb) AS s (id uuid, generation int, ruled jsonb)
    CROSS JOIN LATERAL (
        SELECT m.id, m.shard, m.position, m.ordering_key FROM outbox_message AS m
        WHERE m.id = s.id AND (m.generation = s.generation OR s.generation IS NULL AND m.state = 'held')
        FOR UPDATE) AS m
), written AS (
    INSERT INTO outbox_delivery AS d (message_id, destination, shard, position, ordering_key, state, generation,
                                      attempts, due_at, first_failed_at, reason, fingerprint, log)
    SELECT m.id, r.destination, m.shard, m.position, m.ordering_key, r.state, r.generation, r.attempts,
           CASE WHEN r.state = 'retry' THEN clock_timestamp() + r.delay_s * interval '1 second' END,
           CASE WHEN r.attempts > 0 THEN clock_timestamp() END, r.reason, r.fingerprint, coalesce(r.log, '[]')
    FROM known AS m CROSS JOIN LATERAL jsonb_to_recordset(m.ruled) AS r (
        destination text, state text, generation int, attempts int, delay_s float8, reason text, fingerprint text,
        log jsonb)
    ON CONFLICT (message_id, destination) {{on_conflict}}
    RETURNING destination, shard, position, state
), held AS (
    UPDATE outbox_message AS m SET state = 'held'
    WHERE m.id = ANY (ARRAY(SELECT id FROM known WHERE ruled <> '[]')) AND m.state <> 'held'
)
SELECT (SELECT txid FROM owner), ARRAY(SELECT id::text FROM known), (
    SELECT coalesce(jsonb_agg(jsonb_build_array(destination, shard, position)), '[]') FROM (
        SELECT destination, shard, min(position) AS position FROM written WHERE state = 'parked' GROUP BY 1, 2) AS p)
"""
WRITE_RULED = _WRITE_RULED.format(
    on_conflict=f"""DO UPDATE SET
        state = excluded.state, attempts = excluded.attempts, due_at = excluded.due_at,
        first_failed_at = coalesce(d.first_failed_at, excluded.first_failed_at),
        reason = coalesce(excluded.reason, d.reason), fingerprint = coalesce(excluded.fingerprint, d.fingerprint),
        log = jsonb_path_query_array(d.log || excluded.log, '$[last - {LOG_LENGTH - 1} to last]'),
        changed_at = clock_timestamp(), txid = pg_current_xact_id()
    WHERE d.generation = excluded.generation AND (d.state <> 'cancelled' OR excluded.state = 'delivered')"""
)
WRITE_UNKNOWN = _WRITE_RULED.format(on_conflict="DO NOTHING")

# Index: both primary keys. What an operator discarded or cancelled counts as done, and history says so;
# it is what the statement tells.
FINISH = f"""
WITH done AS (
    DELETE FROM outbox_message AS m
    WHERE {_NAMED} AND m.state = 'held' AND NOT EXISTS (
        SELECT FROM outbox_delivery AS d
        WHERE d.message_id = m.id AND d.state NOT IN ({FINAL}) OFFSET 0)
    RETURNING m.*
), deliveries AS (
    DELETE FROM outbox_delivery AS d USING (
        SELECT d.ctid AS address FROM done
        CROSS JOIN LATERAL (SELECT d.ctid FROM outbox_delivery AS d WHERE d.message_id = done.id OFFSET 0) AS d
    ) AS s WHERE d.ctid = s.address
    RETURNING d.message_id, d.destination, d.state, d.attempts, d.changed_at, d.reason
), summary AS (
    SELECT message_id, max(attempts + (state = 'delivered')::int) AS attempts,
           CASE WHEN bool_or(state = 'delivered') THEN NULL
                WHEN bool_or(state = 'cancelled') THEN 'cancelled'
                WHEN bool_or(state = 'discarded') THEN 'discarded' ELSE 'expired' END AS outcome,
           jsonb_object_agg(destination, jsonb_strip_nulls(jsonb_build_object(
               'state', state, 'attempts', attempts, 'at', changed_at,
               'reason', CASE WHEN state <> 'delivered' THEN reason END))) AS deliveries
    FROM deliveries GROUP BY message_id
), kept AS (
    INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts, registered, outcome, deliveries)
    SELECT {", ".join("done." + column for column in HISTORY.split(", "))}, clock_timestamp(),
           coalesce(summary.attempts, 0), %(registered)s::int, summary.outcome, summary.deliveries
    FROM done LEFT JOIN summary ON summary.message_id = done.id
    WHERE %(keep)s
)
SELECT destination, state FROM deliveries WHERE state IN ({GIVEN_UP})
"""

# Index: outbox_delivery_pkey. Whoever may release a key has its turn until the transaction ends: of two that rule on
# messages of one key, the second sees in its next statement what the first has written. A turn is the lock of a shard's
# row, which needs a right, as an advisory lock does not. All who lock several of these rows do so in their order.
KEYS_OF = """
WITH keys AS MATERIALIZED (
    SELECT DISTINCT d.destination, d.ordering_key, d.shard
    FROM unnest(%(ids)s::uuid[], %(destinations)s::text[]) AS k (id, destination)
    CROSS JOIN LATERAL (
        SELECT * FROM outbox_delivery AS d WHERE d.message_id = k.id AND d.destination = k.destination OFFSET 0) AS d
    WHERE d.ordering_key IS NOT NULL
), turns AS MATERIALIZED (
    SELECT o.shard FROM outbox_shard AS o WHERE o.shard = ANY (ARRAY(SELECT shard FROM keys))
    ORDER BY o.shard FOR NO KEY UPDATE
)
SELECT destination, ordering_key FROM keys WHERE (SELECT count(*) FROM turns) IS NOT NULL
"""

# Index: outbox_delivery_key, one descent for each key. A key is free when the first deliveries of it that are to be
# done are all blocked. As many are looked at as are released at once, however many wait. No row is waited for: one that
# is locked is being ruled on by another session, which has the next turn.
RELEASE_KEYS = f"""
UPDATE outbox_delivery AS d SET state = 'parked', changed_at = clock_timestamp(), txid = pg_current_xact_id()
FROM (
    SELECT h.address FROM unnest(%(destinations)s::text[], %(keys)s::text[]) AS k (destination, ordering_key)
    CROSS JOIN LATERAL (
        SELECT h.address, bool_and(h.state = 'blocked') OVER () AS is_free FROM (
            SELECT h.ctid AS address, h.state FROM outbox_delivery AS h
            WHERE h.ordering_key = k.ordering_key AND h.destination = k.destination AND h.state <> 'delivered'
              AND h.state NOT IN ({UNTAKEN}) AND NOT (h.state = 'dead' AND h.destination = ANY (%(skipping)s::text[]))
            ORDER BY h.position LIMIT {RELEASE_COUNT}
        ) AS h
    ) AS h WHERE h.is_free OFFSET 0
) AS k
CROSS JOIN LATERAL (
    SELECT b.ctid AS address FROM outbox_delivery AS b
    WHERE b.ctid = k.address AND b.state = 'blocked'
    FOR UPDATE SKIP LOCKED
) AS b
WHERE d.ctid = b.address
RETURNING d.destination, d.shard, d.position
"""

# Held while messages are set aside as unrouted: a registration of others waits, and then finds them.
# A lock on the table, which needs a right on it: a lock by number could be held by any login.
SHARE_REGISTRY = "LOCK TABLE outbox_destination IN ROW SHARE MODE"
# Index: outbox_message_pkey, and then the row's address.
MARK_UNROUTED = f"""
UPDATE outbox_message AS m SET state = 'unrouted', due_at = NULL
FROM (
    SELECT m.ctid AS address FROM unnest(%(ids)s::uuid[], %(generations)s::int[]) AS s (id, generation)
    CROSS JOIN LATERAL (
        SELECT m.ctid FROM outbox_message AS m
        WHERE m.id = s.id AND m.generation = s.generation AND m.state <> 'held' OFFSET 0) AS m
) AS s WHERE m.ctid = s.address AND {IS_OWNER} AND {IS_REGISTERED}
"""
