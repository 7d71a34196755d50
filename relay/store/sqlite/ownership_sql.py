"""Registering, beats, and what is done on taking a shard: each with its index (see connection_sql)."""

from __future__ import annotations

from relay.store.contract import DISCARD_COUNT
from relay.store.sqlite.connection_sql import NOW

SCHEMA_VERSION = "SELECT schema_version, oldest_release FROM outbox_meta"
REGISTER = "INSERT INTO outbox_relay (id, release) VALUES (:id, :release) RETURNING number"
UNREGISTER = "DELETE FROM outbox_relay WHERE number = :number"
BEAT = f"UPDATE outbox_relay SET last_seen_at = {NOW}, shards = :shards, wants = 0 WHERE number = :number"

REGISTRY = """
SELECT name, generation, state, paused_by, reason, (julianday(until) - julianday('now')) * 86400.0, pauses,
       (julianday('now') - julianday(changed_at)) * 86400.0, resumed_at
FROM outbox_destination
"""

LEFT_BEHIND = f"""
SELECT shard, dirty, owner, started, {NOW} FROM outbox_shard WHERE shard IN (SELECT value FROM json_each(:shards))
"""

MARK_SHARDS = """
UPDATE outbox_shard SET dirty = :dirty, owner = :owner WHERE shard IN (SELECT value FROM json_each(:shards))
"""
NOTE = "UPDATE outbox_shard SET started = ? WHERE shard = ? AND owner = ?"

# Index: outbox_message's id.
PRESENT = "SELECT m.id FROM json_each(:ids) AS s JOIN outbox_message AS m ON m.id = s.value"

# Index: outbox_delivery_blocked, then outbox_delivery_key.
RELEASE_ORPHANS = f"""
UPDATE outbox_delivery AS d SET state = 'parked', changed_at = {NOW}
WHERE d.state = 'blocked' AND d.shard IN (SELECT value FROM json_each(:shards)) AND NOT EXISTS (
    SELECT 1 FROM outbox_delivery AS h
    WHERE h.ordering_key = d.ordering_key AND h.destination = d.destination AND h.position < d.position
      AND h.state <> 'discarded' AND h.state <> 'delivered'
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

# There is one relay, so whatever it found out is so.
REPORT = f"""
UPDATE outbox_destination SET state = :state, reason = :reason, pauses = :pauses, changed_at = {NOW},
    paused_by = CASE WHEN :state <> 'healthy' THEN 'failure' END,
    until = CASE WHEN :wait_s IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', 'now', :wait_s || ' seconds') END
WHERE name = :name AND paused_by IS NOT 'operator' AND (:state = 'off' OR state <> 'off')
"""
