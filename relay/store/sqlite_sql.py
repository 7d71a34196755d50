"""The relay's statements on SQLite, each with the index it rides on.

Writers come one after another, so positions commit in order and a cursor misses nothing that is new. What an operator
puts back below the cursor carries a stamp (`txid`) higher than any before. Settled rows are gone at once: there is no
vacuum to wait for, and no left edge to avoid.
"""

from __future__ import annotations

from relay.store.contract import DISCARD_COUNT, LOG_LENGTH, RELEASE_COUNT

NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
MESSAGE = """m.id, m.position, m.shard, m.generation, m.type, m.source, m.subject, m.ordering_key,
    m.data, m.headers, m.created_at"""
DELIVERY = f"""d.destination, d.generation, d.attempts,
    coalesce((julianday({NOW}) - julianday(d.first_failed_at)) * 86400.0, 0.0)"""

# Index: outbox_destination_generation. A relay that does not know of the destinations that are registered by now leaves
# messages to those that do.
IS_REGISTERED = "NOT EXISTS (SELECT 1 FROM outbox_destination WHERE generation > :registered)"

# ------------------------------------------------------------------- reading

# Index: outbox_message_ready. These readings bring rows one by one in the order of their index, each with its size at
# the end, until there is a page of them (see `SqliteSession._page`): what is not taken is not looked at.
READ_READY = f"""
SELECT {MESSAGE}, m.size FROM outbox_message AS m
WHERE m.state = 'ready' AND m.position > :cursor AND {IS_REGISTERED} ORDER BY m.position LIMIT :limit
"""

# Index: outbox_message_txid.
READ_LATE = f"""
SELECT {MESSAGE}, m.size FROM outbox_message AS m
WHERE m.txid > :stamp AND m.txid > 0 AND m.state = 'ready' AND m.position <= :cursor AND {IS_REGISTERED}
ORDER BY m.position LIMIT :limit
"""

# Index: outbox_delivery_txid.
LATE_DELIVERIES = """
SELECT d.message_id, d.destination, d.shard, d.position, d.state FROM outbox_delivery AS d
WHERE d.txid > :stamp AND d.txid > 0 AND d.state IN ('parked', 'discarded')
"""
LAST_STAMP = """
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
SELECT {MESSAGE}, m.due_at, m.size FROM outbox_message AS m
WHERE m.state = 'scheduled' AND m.due_at <= {NOW} AND (m.due_at, m.position) > (:due, :position) AND {IS_REGISTERED}
ORDER BY m.due_at, m.position LIMIT :limit
"""

# Index: outbox_message_due. Written since the last look, and due before what was read then. Left of that lies only what
# is in memory: what is settled is gone.
READ_SCHEDULED_LATE = f"""
SELECT {MESSAGE}, m.due_at, m.size FROM outbox_message AS m
WHERE m.state = 'scheduled' AND (m.due_at, m.position) <= (:due, :position) AND m.position > :newest AND {IS_REGISTERED}
ORDER BY m.position LIMIT :limit
"""
NEWEST = "SELECT coalesce(max(position), 0) FROM outbox_message"

# Index: outbox_delivery_retry. Strictly before now: within this very millisecond another may still be written.
READ_RETRIES = f"""
SELECT {MESSAGE}, {DELIVERY}, d.due_at, m.size FROM outbox_delivery AS d JOIN outbox_message AS m ON m.id = d.message_id
WHERE d.state = 'retry' AND d.due_at < {NOW} AND (d.due_at, d.position, d.destination) > (:due, :position, :destination)
ORDER BY d.due_at, d.position, d.destination LIMIT :limit
"""

# Index: outbox_delivery_key, one descent per destination and key.
HELD_KEYS = """
SELECT destination, ordering_key, position FROM (
    SELECT n.value AS destination, k.value AS ordering_key, (
        SELECT d.position FROM outbox_delivery AS d
        WHERE d.ordering_key = k.value AND d.ordering_key IS NOT NULL AND d.destination = n.value
          AND d.state <> 'delivered' AND d.state <> 'discarded'
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
HAS_DELIVERIES = "SELECT EXISTS (SELECT 1 FROM outbox_delivery WHERE state <> 'delivered')"

# ------------------------------------------------------------------ settling

HISTORY = "id, position, type, source, subject, ordering_key, data, headers, created_at"

# Index: outbox_message's id. The history first, then the queue: SQLite has no DELETE … RETURNING inside of an INSERT.
KEEP_PLAIN = f"""
INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts)
SELECT {HISTORY}, {NOW}, 1 FROM outbox_message WHERE id = ? AND generation = ? AND state <> 'held'
"""
DELETE_PLAIN = "DELETE FROM outbox_message WHERE id = ? AND generation = ? AND state <> 'held'"

IS_CURRENT = """
SELECT m.id FROM json_each(:messages) AS s JOIN outbox_message AS m ON m.id = s.value ->> 0
WHERE s.value ->> 1 IS NULL OR m.generation = s.value ->> 1
"""

# What may be overwritten: the generation that was read. An operator who has intervened raised it.
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
"""

HOLD_MESSAGES = """
UPDATE outbox_message SET state = 'held', due_at = NULL
WHERE id IN (SELECT value FROM json_each(:ids)) AND state IN ('ready', 'scheduled')
"""

DONE = """
SELECT m.id FROM json_each(:ids) AS s JOIN outbox_message AS m ON m.id = s.value
WHERE NOT EXISTS (SELECT 1 FROM outbox_delivery AS d
                  WHERE d.message_id = m.id AND d.state NOT IN ('delivered', 'discarded'))
"""
KEEP = f"""
INSERT INTO outbox_history ({HISTORY}, delivered_at, attempts, deliveries)
SELECT {HISTORY}, {NOW},
       coalesce((SELECT max(attempts) FROM outbox_delivery AS d WHERE d.message_id = m.id), 0) + 1,
       (SELECT json_group_object(destination, json_object('state', state, 'attempts', attempts))
        FROM outbox_delivery AS d WHERE d.message_id = m.id)
FROM outbox_message AS m WHERE m.id IN (SELECT value FROM json_each(:ids))
"""
DELETE_DELIVERIES = "DELETE FROM outbox_delivery WHERE message_id IN (SELECT value FROM json_each(:ids))"
DELETE_MESSAGES = "DELETE FROM outbox_message WHERE id IN (SELECT value FROM json_each(:ids))"

# Index: outbox_delivery's primary key.
KEYS_OF = """
SELECT DISTINCT d.destination, d.ordering_key FROM json_each(:pairs) AS k
JOIN outbox_delivery AS d ON d.message_id = k.value ->> 0 AND d.destination = k.value ->> 1
WHERE d.ordering_key IS NOT NULL
"""
PARKED_OF = """
SELECT d.destination, d.shard, min(d.position) FROM json_each(:ids) AS s
JOIN outbox_delivery AS d ON d.message_id = s.value WHERE d.state = 'parked' GROUP BY 1, 2
"""

# Index: outbox_delivery_key. A key is free when nothing before its blocked deliveries is still to be done.
RELEASE_KEY = f"""
UPDATE outbox_delivery SET state = 'parked', changed_at = {NOW}
WHERE rowid IN (
    SELECT b.rowid FROM outbox_delivery AS b
    WHERE b.ordering_key = :key AND b.destination = :destination AND b.state = 'blocked' AND b.state <> 'delivered'
    ORDER BY b.position LIMIT {RELEASE_COUNT})
  AND NOT EXISTS (
    SELECT 1 FROM outbox_delivery AS h
    WHERE h.ordering_key = :key AND h.destination = :destination AND h.state <> 'delivered'
      AND (h.state IN ('parked', 'retry') OR (h.state = 'dead' AND :blocks)))
RETURNING destination, shard, position
"""

# Index: outbox_delivery_blocked, then outbox_delivery_key.
RELEASE_ORPHANS = f"""
UPDATE outbox_delivery AS d SET state = 'parked', changed_at = {NOW}
WHERE d.state = 'blocked' AND d.shard IN (SELECT value FROM json_each(:shards)) AND NOT EXISTS (
    SELECT 1 FROM outbox_delivery AS h
    WHERE h.ordering_key = d.ordering_key AND h.destination = d.destination AND h.position < d.position
      AND h.state NOT IN ('delivered', 'discarded') AND h.state <> 'delivered'
      AND NOT (h.state = 'dead' AND h.destination IN (SELECT value FROM json_each(:skipping))))
"""

# Index: outbox_delivery_discarded, then outbox_delivery's primary key and outbox_message's id. What nothing but its
# discarding holds up any more.
DISCARDED = f"""
SELECT d.message_id, d.destination FROM outbox_delivery AS d
WHERE d.state = 'discarded' AND EXISTS (SELECT 1 FROM outbox_message AS m WHERE m.id = d.message_id)
  AND NOT EXISTS (SELECT 1 FROM outbox_delivery AS s
                  WHERE s.message_id = d.message_id AND s.state NOT IN ('delivered', 'discarded'))
LIMIT {DISCARD_COUNT}
"""

MARK_UNROUTED = f"""
UPDATE outbox_message SET state = 'unrouted', due_at = NULL
WHERE id = :id AND generation = :generation AND {IS_REGISTERED}
"""

# There is one relay, so whatever it found out is so.
REPORT = f"""
UPDATE outbox_destination SET state = :state, reason = :reason, pauses = :pauses, changed_at = {NOW},
    paused_by = CASE WHEN :state <> 'healthy' THEN 'failure' END,
    until = CASE WHEN :wait_s IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', 'now', :wait_s || ' seconds') END
WHERE name = :name AND paused_by IS NOT 'operator' AND (:state = 'off' OR state <> 'off')
"""

# ----------------------------------------------------------------- ownership

REGISTER = "INSERT INTO outbox_relay (id, release) VALUES (:id, :release) RETURNING number"
UNREGISTER = "DELETE FROM outbox_relay WHERE number = :number"
BEAT = f"UPDATE outbox_relay SET last_seen_at = {NOW}, shards = :shards, wants = 0 WHERE number = :number"
LEFT_BEHIND = f"""
SELECT shard, dirty, owner, started, {NOW} FROM outbox_shard WHERE shard IN (SELECT value FROM json_each(:shards))
"""
MARK_SHARDS = """
UPDATE outbox_shard SET dirty = :dirty, owner = :owner WHERE shard IN (SELECT value FROM json_each(:shards))
"""
NOTE = "UPDATE outbox_shard SET started = ? WHERE shard = ? AND owner = ?"

# Index: outbox_message's id.
PRESENT = "SELECT m.id FROM json_each(:ids) AS s JOIN outbox_message AS m ON m.id = s.value"
SCHEMA_VERSION = "SELECT schema_version, oldest_release FROM outbox_meta"
REGISTRY = """
SELECT name, generation, state, paused_by, reason, (julianday(until) - julianday('now')) * 86400.0, pauses,
       (julianday('now') - julianday(changed_at)) * 86400.0, resumed_at
FROM outbox_destination
"""
