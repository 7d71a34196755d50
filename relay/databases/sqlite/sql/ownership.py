"""Registration, beats and the rows of shards: each with its index (see `connection`)."""

from __future__ import annotations

from relay.databases.sqlite.sql.connection import NOW
from relay.decide.shared_state import LONGEST_PAUSE_S, LONGEST_THROTTLE_S

CLOCK_S = "(julianday('now') - 2440587.5) * 86400.0"  # seconds since 1970
CLOCK = f"SELECT {CLOCK_S}"

SCHEMA_VERSION = "SELECT schema_version, oldest_release FROM outbox_meta"
REGISTER = "INSERT INTO outbox_relay (id, release) VALUES (:id, :release) RETURNING number"
UNREGISTER = "DELETE FROM outbox_relay WHERE number = :number"
LAST_BEAT = "SELECT last_seen_at FROM outbox_relay WHERE number = :number"
BEAT = f"UPDATE outbox_relay SET last_seen_at = {NOW}, shards = :shards, wants = 0 WHERE number = :number"

REGISTRY = f"""
SELECT name, generation, state, paused_by, reason,
       CASE WHEN (julianday(until) - julianday('now')) * 86400.0 >
                 CASE state WHEN 'throttled' THEN {LONGEST_THROTTLE_S} ELSE {LONGEST_PAUSE_S} END THEN 0.0
            ELSE (julianday(until) - julianday('now')) * 86400.0 END, pauses,
       (julianday('now') - julianday(changed_at)) * 86400.0, resumed_at, note
FROM outbox_destination
"""

# A shard without its row, which someone has deleted, is taken all the same.
LEFT_BEHIND = f"""
SELECT s.value, o.dirty, o.owner, o.started, {NOW} FROM json_each(:shards) AS s
LEFT JOIN outbox_shard AS o ON o.shard = s.value
"""

MARK_SHARDS = """
UPDATE outbox_shard SET dirty = :dirty, owner = :owner WHERE shard IN (SELECT value FROM json_each(:shards))
"""
NOTE = "UPDATE outbox_shard SET started = ? WHERE shard = ? AND owner = ?"

# Index: outbox_message's id.
PRESENT = "SELECT m.id FROM json_each(:ids) AS s JOIN outbox_message AS m ON m.id = s.value"

# There is one relay, so its findings are not disputed.
REPORT = f"""
UPDATE outbox_destination SET state = :state, reason = :reason, pauses = :pauses, changed_at = {NOW},
    note = :note, since = CASE WHEN state = :state AND paused_by IS NOT 'operator' THEN since ELSE {NOW} END,
    paused_by = CASE WHEN :state <> 'healthy' THEN 'failure' END,
    until = CASE WHEN :wait_s IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', 'now', :wait_s || ' seconds') END
WHERE name = :name AND paused_by IS NOT 'operator' AND (:state = 'off' OR state <> 'off')
"""

# There is one relay: `relay.decide.rate` does the calculation.
RATE = f"SELECT arrival_s, {CLOCK_S} FROM outbox_rate WHERE destination = :name"
ADD_RATE = "INSERT OR IGNORE INTO outbox_rate (destination, rate) VALUES (:name, :text)"
CLAIM_RATE = "UPDATE outbox_rate SET arrival_s = :arrival_s WHERE destination = :name"
