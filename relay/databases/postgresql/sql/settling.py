"""Write verdicts: each statement with its index (see `connection`)."""

from __future__ import annotations

from relay.databases.postgresql.sql.connection import IS_OWNER, IS_REGISTERED
from relay.databases.store.contract import LOG_LENGTH, RELEASE_COUNT
from relay.databases.store.state_lists import FINAL, GIVEN_UP, UNTAKEN

HISTORY = "id, position, type, source, subject, ordering_key, data, headers, created_at"

# Index: outbox_message_pkey. With an array, a move costs three quarters of the same move with a join.
_NAMED = "m.id = ANY (%(ids)s::uuid[])"

# No index: a row is found by the address at which it was read, which saves a descent and a fifth of the move. Only its
# id shows whether it is still the same message, because positions start again in a truncated table. IS TRUE makes the
# planner use a hash table of the ids; without it, the planner uses a join with nested loops.
_LYING = """m.ctid = ANY (%(addresses)s::tid[]) AND (m.id IN (SELECT unnest(%(ids)s::uuid[]))) IS TRUE"""


def _settle_plain(which: str, *, keep_history: bool) -> str:
    """Return the statement that settles plain messages. It checks no ownership: what it writes is true for any owner.

    `commit` is `on` or `off` and says whether the server waits for its disk; see docs/decisions/0003.
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

# Write verdicts on deliveries if this is still the owner; return the transaction's id, the messages that exist, and the
# deliveries that are parked now. The ids are sorted, so two of these statements never deadlock. A row is only
# overwritten if it has the generation that was read, because an operator's change raises the generation. A delivery
# that was cancelled while it was under way becomes delivered if it was taken; otherwise it stays cancelled. The message
# of a delivery that was read back must be held. If it is not, a server that crashed has lost that change, and with it
# the other deliveries of the message. Index: both primary keys.
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

# Index: both primary keys. A delivery that an operator discarded or cancelled counts as done, and the history records
# it. The statement returns such deliveries.
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

# Index: outbox_delivery_pkey. A session that may release a key locks the row of its shard until the transaction ends:
# if two sessions write verdicts on one key, the second one sees in its next statement what the first has written.
# Unlike an advisory lock, a row lock needs a right. All statements lock several of these rows in the order of the
# shards.
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

# Index: outbox_delivery_key, one descent for each key. A key is free if its first open deliveries are all blocked. The
# statement reads only as many as it releases at once, no matter how many wait. It waits for no row: a locked row is
# being changed by another session, which releases the key next.
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

# Held while unrouted messages are set aside, so that a registration of other destinations waits, and then finds these
# messages. It is a lock on the table, for which a role needs a right; any login could hold an advisory lock.
SHARE_REGISTRY = "LOCK TABLE outbox_destination IN ROW SHARE MODE"
# Index: outbox_message_pkey, then the row's address.
MARK_UNROUTED = f"""
UPDATE outbox_message AS m SET state = 'unrouted', due_at = NULL
FROM (
    SELECT m.ctid AS address FROM unnest(%(ids)s::uuid[], %(generations)s::int[]) AS s (id, generation)
    CROSS JOIN LATERAL (
        SELECT m.ctid FROM outbox_message AS m
        WHERE m.id = s.id AND m.generation = s.generation AND m.state <> 'held' OFFSET 0) AS m
) AS s WHERE m.ctid = s.address AND {IS_OWNER} AND {IS_REGISTERED}
"""
