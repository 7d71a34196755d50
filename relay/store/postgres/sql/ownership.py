"""Locks, beats and peers: each with its index (see `connection`)."""

from __future__ import annotations

from outbox.tables import SHARD_COUNT
from relay.decide.rate import EASE
from relay.decide.shared_state import DISPUTED_S, PROBE_LEASE_S
from relay.store.postgres.sql.connection import IS_OWNER

SERVER_AGE = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"

SCHEMA_VERSION = "SELECT schema_version, oldest_release FROM outbox_meta"

REGISTER = """
INSERT INTO outbox_relay (id, backend_pid, presence, release)
VALUES (%(id)s, pg_backend_pid(), %(presence)s, %(release)s) RETURNING number
"""
UNREGISTER = "DELETE FROM outbox_relay WHERE number = %(number)s"

# The keys of presence locks are above those of the shards. Each is random, so a login without rights cannot take it in
# advance.
PRESENCES = range(SHARD_COUNT, 2**31)
LOCK_PRESENCE = "SELECT pg_try_advisory_lock(%(key)s, %(presence)s)"

# A number that was used before belongs to a relay of another server, or of before a restore: it owns no shard here.
FORGET_NAMESAKE = "UPDATE outbox_shard SET relay = NULL WHERE relay = %(number)s"

# The server's lock table shows which relay is alive; the row of the relay, which only a relay's role can write, names
# its lock.
LOCKS = """
SELECT l.objid::bigint AS objid, l.pid FROM pg_locks AS l
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = (%(key)s::bigint & 4294967295)::oid
"""
LIVING = f"""
locks AS MATERIALIZED ({LOCKS}), living AS MATERIALIZED (
    SELECT r.number, r.backend_pid, r.id, r.wants,
           extract(epoch FROM clock_timestamp() - r.last_seen_at)::float8 AS silent_for_s
    FROM locks AS l JOIN outbox_relay AS r ON r.backend_pid = l.pid AND r.presence = l.objid
)
"""
# A role that may not do what a relay does, nor become one that may.
MAY_OWN = """
EXISTS (SELECT FROM pg_stat_activity AS a JOIN pg_roles AS r ON pg_has_role(a.usesysid, r.oid, 'MEMBER')
        WHERE a.pid = {pid} AND has_table_privilege(r.oid, 'outbox_shard', 'UPDATE'))
"""

LOCK_SHARDS = f"""
SELECT s.shard FROM unnest(%(shards)s::int[]) AS s (shard) WHERE {IS_OWNER} AND pg_try_advisory_lock(%(key)s, s.shard)
"""
NEWEST = "SELECT last_value FROM outbox_message_position_seq"
# The sessions that hold the locks of shards.
HOLDERS = f"""
WITH {LIVING}
SELECT l.objid::int, l.pid, a.usename::text, a.application_name,
       EXISTS (SELECT FROM living AS v WHERE v.backend_pid = l.pid), {MAY_OWN.format(pid="l.pid")}
FROM locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.objid = ANY (%(shards)s::bigint[])
"""
EXISTING = "SELECT shard FROM outbox_shard WHERE shard = ANY (%(shards)s::smallint[])"
UNLOCK_SHARDS = "SELECT pg_advisory_unlock(%(key)s, s.shard) FROM unnest(%(shards)s::int[]) AS s (shard)"
# A shard is ours when its row names us; before, it must not name a relay that is alive. If two relays find it free at
# once, the second one finds that it has changed. A number belongs to one session, and is never alive again after it.
MARK_TAKEN = f"""
WITH {LIVING}
UPDATE outbox_shard AS o SET dirty = true, owner = %(owner)s, relay = %(number)s
FROM unnest(%(shards)s::smallint[]) AS s (shard) JOIN outbox_shard AS was ON was.shard = s.shard
WHERE o.shard = s.shard AND {IS_OWNER} AND o.relay IS NOT DISTINCT FROM was.relay
  AND NOT EXISTS (SELECT FROM living AS v WHERE v.number = was.relay AND v.number <> %(number)s)
RETURNING o.shard, was.dirty, was.owner, was.started, clock_timestamp()
"""
MARK_GIVEN = f"""
UPDATE outbox_shard AS o SET dirty = false, owner = NULL, relay = NULL
FROM unnest(%(shards)s::smallint[]) AS s (shard)
WHERE o.shard = s.shard AND o.relay = %(number)s AND {IS_OWNER}
"""

# The record has to survive the relay, not the server: the commit does not wait for the disk.
NOTE = f"""
UPDATE outbox_shard AS o SET started = n.record::jsonb
FROM unnest(%(shards)s::smallint[], %(records)s::text[]) AS n (shard, record)
CROSS JOIN set_config('synchronous_commit', 'off', true)
WHERE o.shard = n.shard AND o.owner = %(owner)s AND {IS_OWNER}
"""

# Index: outbox_message_pkey.
PRESENT = """
SELECT m.id FROM unnest(%(ids)s::uuid[]) AS s (id)
CROSS JOIN LATERAL (SELECT m.id FROM outbox_message AS m WHERE m.id = s.id OFFSET 0) AS m
"""

BEAT = f"""
UPDATE outbox_relay SET last_seen_at = clock_timestamp(), shards = %(shards)s::jsonb, wants = %(wants)s
WHERE number = %(number)s AND {IS_OWNER} RETURNING extract(epoch FROM clock_timestamp())::float8
"""

# The relays that are alive, with the shards of each: by its locks, and by the rows that name it.
PEERS = f"""
WITH {LIVING}
SELECT v.number, v.backend_pid, v.id, v.wants, v.silent_for_s, (
    SELECT string_agg(h.shard::text, ',') FROM (
        SELECT l.objid AS shard FROM locks AS l WHERE l.pid = v.backend_pid AND l.objid < {SHARD_COUNT}
        UNION SELECT o.shard FROM outbox_shard AS o WHERE o.relay = v.number) AS h)
FROM living AS v
"""

END_SESSION = "SELECT pg_terminate_backend(%(pid)s)"
# A role that may not own shards took the process id and the presence lock of a relay that has ended.
FORGET_IMPOSTOR = f"""
DELETE FROM outbox_relay WHERE number = %(number)s AND NOT {MAY_OWN.format(pid="%(pid)s")}
"""

SHARED_STATE = """state, paused_by, reason, extract(epoch FROM until - clock_timestamp())::float8, pauses,
    extract(epoch FROM clock_timestamp() - changed_at)::float8, resumed_at"""
REGISTRY = f"SELECT name, generation, {SHARED_STATE} FROM outbox_destination"

# A row that stops all relays is changed by the relay that probed for all, by one that disputes it, or by a worse state.
REPORT = f"""
UPDATE outbox_destination SET state = %(state)s, reason = %(reason)s, pauses = %(pauses)s,
    note = %(note)s, since = CASE WHEN state = %(state)s THEN since ELSE clock_timestamp() END,
    changed_at = clock_timestamp(), paused_by = CASE WHEN %(state)s <> 'healthy' THEN 'failure' END,
    until = clock_timestamp() + %(wait_s)s::float8 * interval '1 second',
    disputed_at = CASE WHEN %(disputes)s THEN clock_timestamp() WHEN NOT %(is_probe)s THEN disputed_at END
WHERE name = %(name)s AND paused_by IS DISTINCT FROM 'operator' AND {IS_OWNER} AND CASE %(state)s
    WHEN 'off' THEN true
    WHEN 'throttled' THEN state <> 'off'
    WHEN 'paused' THEN %(is_probe)s OR (
        (state = 'healthy' OR (state <> 'off' AND until IS NULL) OR (state = 'throttled' AND until < clock_timestamp()))
        AND (%(wait_s)s::float8 IS NULL OR disputed_at IS NULL
             OR disputed_at < clock_timestamp() - {DISPUTED_S} * interval '1 second'))
    ELSE state <> 'off' AND (%(is_probe)s OR %(disputes)s OR until IS NULL OR (
        state <> 'paused' AND until < clock_timestamp() + interval '1 second')) END
"""
CLAIM_PROBE = f"""
UPDATE outbox_destination SET until = clock_timestamp() + {PROBE_LEASE_S} * interval '1 second'
WHERE name = %(name)s AND state = 'paused' AND paused_by = 'failure' AND until <= clock_timestamp() AND {IS_OWNER}
"""
SHARED_STATE_OF = f"SELECT {SHARED_STATE} FROM outbox_destination WHERE name = %(name)s"

# The calculation of `relay.decide.rate`. If two relays ask at once, the second one waits for the row, and gets what the
# first one left. A crash of the server may forget a claim: the commit does not wait for the disk. Index:
# outbox_rate_pkey.
CLAIM_RATE = f"""
WITH budget AS MATERIALIZED (
    SELECT destination, arrival_s, extract(epoch FROM clock_timestamp())::float8 AS now_s
    FROM outbox_rate WHERE destination = %(name)s FOR UPDATE
), was AS MATERIALIZED (
    SELECT destination, greatest(arrival_s, now_s) AS arrival_s, now_s,
           set_config('synchronous_commit', 'off', true) FROM budget
), claim AS MATERIALIZED (
    SELECT destination, arrival_s, now_s, greatest(least(%(want)s::int, floor(
        %(burst)s::int - (arrival_s - now_s) * %(per_s)s::float8 + {EASE})::int), 0) AS granted FROM was
)
UPDATE outbox_rate AS r SET arrival_s = c.arrival_s + c.granted / %(per_s)s::float8
FROM claim AS c WHERE r.destination = c.destination
RETURNING c.granted, r.arrival_s, c.now_s
"""
ADD_RATE = "INSERT INTO outbox_rate (destination, rate) VALUES (%(name)s, %(text)s) ON CONFLICT DO NOTHING"
