"""Write verdicts: each statement with its index (see `connection`)."""

from __future__ import annotations

from relay.databases.sqlite.sql.connection import IS_REGISTERED, NOW
from relay.databases.store.contract import LOG_LENGTH, RELEASE_COUNT
from relay.databases.store.state_lists import FINAL, UNTAKEN

HISTORY = "id, position, type, source, subject, ordering_key, data, headers, created_at"

# Index: outbox_message's id. The history is written first, then the queue: SQLite has no DELETE … RETURNING inside an
# INSERT. One statement for a batch takes half the time of one statement for each message.
KEEP_PLAIN = f"""
INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts, registered)
SELECT {", ".join("m." + column for column in HISTORY.split(", "))}, {NOW}, 1, :registered
FROM json_each(:ids) AS s CROSS JOIN outbox_message AS m ON m.id = s.value
WHERE m.generation = :generation AND m.state <> 'held'
"""
DELETE_PLAIN = """
DELETE FROM outbox_message
WHERE id IN (SELECT value FROM json_each(:ids)) AND generation = :generation AND state <> 'held'
"""

# The message of a delivery that was read back is held; if it is not, an older file has replaced this one.
IS_CURRENT = """
SELECT m.id FROM json_each(:messages) AS s JOIN outbox_message AS m ON m.id = s.value ->> 0
WHERE m.generation = s.value ->> 1 OR (s.value ->> 1 IS NULL AND m.state = 'held')
"""

# A row is only overwritten if it has the generation that was read, because an operator's change raises the generation.
# A delivery that was cancelled while it was under way becomes delivered if it was taken; otherwise it stays cancelled.
WRITE_RULED = f"""
INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state, generation, attempts,
                             due_at, first_failed_at, reason, fingerprint, log)
SELECT m.id, r.value ->> 'destination', m.shard, m.position, m.ordering_key, r.value ->> 'state',
       r.value ->> 'generation', r.value ->> 'attempts',
       CASE WHEN r.value ->> 'state' = 'retry'
            THEN strftime('%Y-%m-%d %H:%M:%f', 'now', (r.value ->> 'delay_s') || ' seconds') END,
       CASE WHEN r.value ->> 'attempts' > 0 THEN {NOW} END,
       r.value ->> 'reason', r.value ->> 'fingerprint', r.value -> 'log'
FROM json_each(:ruled) AS r JOIN outbox_message AS m ON m.id = r.value ->> 'message_id'
WHERE NOT r.value ->> 'is_unknown' OR NOT EXISTS (
    SELECT 1 FROM outbox_delivery AS k
    WHERE k.message_id = r.value ->> 'message_id' AND k.destination = r.value ->> 'destination')
ON CONFLICT (message_id, destination) DO UPDATE SET
    state = excluded.state, attempts = excluded.attempts, due_at = excluded.due_at,
    first_failed_at = coalesce(outbox_delivery.first_failed_at, excluded.first_failed_at),
    reason = coalesce(excluded.reason, outbox_delivery.reason),
    fingerprint = coalesce(excluded.fingerprint, outbox_delivery.fingerprint),
    log = (SELECT json_group_array(json(value)) FROM (
        SELECT value FROM (SELECT 0 AS part, key, value FROM json_each(outbox_delivery.log)
                           UNION ALL SELECT 1, key, value FROM json_each(excluded.log) ORDER BY 1 DESC, 2 DESC
                           LIMIT {LOG_LENGTH}) ORDER BY part, key)),
    changed_at = {NOW}
WHERE outbox_delivery.generation = excluded.generation
  AND (outbox_delivery.state <> 'cancelled' OR excluded.state = 'delivered')
"""

HOLD_MESSAGES = """
UPDATE outbox_message SET state = 'held'
WHERE id IN (SELECT value FROM json_each(:ids)) AND state <> 'held'
"""

DONE = f"""
SELECT m.id FROM json_each(:ids) AS s JOIN outbox_message AS m ON m.id = s.value
WHERE NOT EXISTS (SELECT 1 FROM outbox_delivery AS d
                  WHERE d.message_id = m.id AND d.state NOT IN ({FINAL}))
"""

KEEP = f"""
INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts, registered, outcome, deliveries)
SELECT {HISTORY}, {NOW},
       coalesce((SELECT max(attempts + (state = 'delivered')) FROM outbox_delivery AS d WHERE d.message_id = m.id), 0),
       :registered,
       (SELECT CASE WHEN max(state = 'delivered') THEN NULL
                    WHEN max(state = 'cancelled') THEN 'cancelled'
                WHEN max(state = 'discarded') THEN 'discarded' ELSE 'expired' END
        FROM outbox_delivery AS d WHERE d.message_id = m.id),
       (SELECT json_group_object(destination, json_patch('{{}}', json_object(
            'state', state, 'attempts', attempts, 'at', replace(changed_at, ' ', 'T') || 'Z',
            'reason', CASE WHEN state <> 'delivered' THEN reason END)))
        FROM outbox_delivery AS d WHERE d.message_id = m.id)
FROM outbox_message AS m WHERE m.id IN (SELECT value FROM json_each(:ids))
"""
DELETE_DELIVERIES = """
DELETE FROM outbox_delivery WHERE message_id IN (SELECT value FROM json_each(:ids)) RETURNING destination, state
"""
DELETE_MESSAGES = "DELETE FROM outbox_message WHERE id IN (SELECT value FROM json_each(:ids))"

# Index: outbox_delivery's primary key.
KEYS_OF = """
SELECT DISTINCT d.destination, d.ordering_key FROM json_each(:pairs) AS k
JOIN outbox_delivery AS d ON d.message_id = k.value ->> 0 AND d.destination = k.value ->> 1
WHERE d.ordering_key IS NOT NULL
"""

PARKED_OF = """
SELECT d.destination, d.shard, min(d.position) FROM json_each(:pairs) AS k
JOIN outbox_delivery AS d ON d.message_id = k.value ->> 0 AND d.destination = k.value ->> 1
WHERE d.state = 'parked' GROUP BY 1, 2
"""

# Index: outbox_delivery_key. A key is free if its first open deliveries are all blocked. The statement reads only as
# many as it releases at once, no matter how many wait.
RELEASE_KEY = f"""
UPDATE outbox_delivery SET state = 'parked', changed_at = {NOW}
WHERE rowid IN (
    SELECT b.rowid FROM outbox_delivery AS b
    WHERE b.ordering_key = :key AND b.destination = :destination AND b.state = 'blocked' AND b.state <> 'delivered'
    ORDER BY b.position LIMIT {RELEASE_COUNT})
  AND NOT EXISTS (
    SELECT 1 FROM (
        SELECT h.state FROM outbox_delivery AS h
        WHERE h.ordering_key = :key AND h.destination = :destination AND h.state <> 'delivered'
          AND h.state NOT IN ({UNTAKEN}) AND NOT (h.state = 'dead' AND NOT :blocks)
        ORDER BY h.position LIMIT {RELEASE_COUNT}
    ) AS h WHERE h.state <> 'blocked')
RETURNING destination, shard, position
"""

MARK_UNROUTED = f"""
UPDATE outbox_message SET state = 'unrouted', due_at = NULL
WHERE id = :id AND generation = :generation AND {IS_REGISTERED}
"""
