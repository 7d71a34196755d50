"""Locks, beats and peers: each with its index (see `connection`)."""

from __future__ import annotations

from outbox.tables import SHARD_COUNT
from relay.databases.postgresql.sql.connection import IS_OWNER
from relay.decide.shared_state import DISPUTED_S, LONGEST_PAUSE_S, LONGEST_THROTTLE_S, PROBE_LEASE_S

SERVER_AGE = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"

SCHEMA_VERSION = "SELECT schema_version, oldest_release FROM outbox_meta"

REGISTER = """
INSERT INTO outbox_relay (id, backend_pid, presence, release)
VALUES (%(id)s, pg_backend_pid(), %(presence)s, %(release)s) RETURNING number
"""
UNREGISTER = "DELETE FROM outbox_relay WHERE number = %(number)s"

# Presence locks are *session* advisory locks of one class; they end when their session ends for any reason. Each key is
# random, so a login without rights cannot take it in advance.
PRESENCES = range(1, 2**31)
LOCK_CLASS = """
SELECT hashtext(n.nspname || '.outbox_message') FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
WHERE t.oid = to_regclass('outbox_message')
"""
LOCK_PRESENCE = f"SELECT pg_try_advisory_lock(({LOCK_CLASS}), %(presence)s)"

# A number that was used before belongs to a relay on another server, or from before a restore: it owns no shard here.
FORGET_NAMESAKE = "UPDATE outbox_shard SET relay = NULL WHERE relay = %(number)s"

# If the table was emptied by hand, or by a host's tests, the shards would have no owner.
RESTORE_SHARDS = f"""
INSERT INTO outbox_shard (shard) SELECT n FROM generate_series(0, {SHARD_COUNT - 1}) AS n
WHERE (SELECT count(*) FROM outbox_shard) < {SHARD_COUNT} ON CONFLICT DO NOTHING
"""

# The server's lock table shows which relay is alive; the row of the relay, which only a relay's role can write, names
# its lock.
LIVING = f"""
locks AS MATERIALIZED (
    SELECT l.objid::bigint AS objid, l.pid FROM pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.classid = (({LOCK_CLASS})::bigint & 4294967295)::oid
), living AS MATERIALIZED (
    SELECT r.number, r.backend_pid, r.id, r.wants,
           extract(epoch FROM clock_timestamp() - r.last_seen_at)::float8 AS silent_for_s
    FROM locks AS l JOIN outbox_relay AS r ON r.backend_pid = l.pid AND r.presence = l.objid
)
"""
# A shard is ours when its row names us; before that, it must not name a relay that is alive. If two relays find it free
# at once, the second one waits for the row, and finds that it has changed. A number belongs to one session, and is
# never alive again when that session has ended.
TAKE = f"""
WITH {LIVING}
UPDATE outbox_shard AS o SET dirty = true, owner = %(owner)s, relay = %(number)s
FROM unnest(%(shards)s::smallint[]) AS s (shard) JOIN outbox_shard AS was ON was.shard = s.shard
WHERE o.shard = s.shard AND {IS_OWNER} AND o.relay IS NOT DISTINCT FROM was.relay
  AND NOT EXISTS (SELECT FROM living AS v WHERE v.number = was.relay AND v.number <> %(number)s)
RETURNING o.shard, was.dirty, was.owner, was.started, clock_timestamp()
"""
GIVE = f"""
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

# The relays that are alive, with the shards whose rows name them.
PEERS = f"""
WITH {LIVING}
SELECT v.number, v.backend_pid, v.id, v.wants, v.silent_for_s,
       ARRAY(SELECT o.shard::int FROM outbox_shard AS o WHERE o.relay = v.number ORDER BY 1) AS shards
FROM living AS v
"""

# A server whose standby is away answers no commit, and its backend does not notice that its client has gone. The next
# session of this relay ends that backend, or each further session would leave another one.
END_ABANDONED = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a
WHERE a.application_name = current_setting('application_name') AND a.datname = current_database()
  AND a.usename = session_user AND pg_has_role(a.usesysid, 'USAGE') AND a.state = 'active'
  AND a.state_change < clock_timestamp() - %(lease_s)s::float8 * interval '1 second'
"""
END_SESSION = "SELECT pg_terminate_backend(%(pid)s)"
# An impostor has the process id and the presence lock of a relay that has ended, but its role may neither do what a
# relay does, nor become a role that may.
FORGET_IMPOSTOR = """
DELETE FROM outbox_relay WHERE number = %(number)s AND NOT EXISTS (
    SELECT FROM pg_stat_activity AS a JOIN pg_roles AS r ON pg_has_role(a.usesysid, r.oid, 'MEMBER')
    WHERE a.pid = %(pid)s AND has_table_privilege(r.oid, 'outbox_shard', 'UPDATE'))
"""

_IS_STALE = f"""until > clock_timestamp() + interval '1 second' *
    CASE state WHEN 'throttled' THEN {LONGEST_THROTTLE_S} ELSE {LONGEST_PAUSE_S} END"""
SHARED_STATE = f"""state, paused_by, reason,
    CASE WHEN {_IS_STALE} THEN 0 ELSE extract(epoch FROM until - clock_timestamp()) END::float8, pauses,
    extract(epoch FROM clock_timestamp() - changed_at)::float8, resumed_at, note"""
REGISTRY = f"SELECT name, generation, {SHARED_STATE} FROM outbox_destination"

# A row that stops all relays is only changed by the relay that probed for all, by a relay that disputes it, or for a
# worse state.
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
WHERE name = %(name)s AND state = 'paused' AND paused_by = 'failure' AND (until <= clock_timestamp() OR {_IS_STALE})
    AND {IS_OWNER}
"""
SHARED_STATE_OF = f"SELECT {SHARED_STATE} FROM outbox_destination WHERE name = %(name)s"

# `relay.decide.rate` does the calculation. If two relays ask at once, the second one finds that the row has changed. A
# crash of the server may forget a claim: the commit does not wait for the disk. Index: outbox_rate_pkey.
RATE = """
SELECT coalesce((SELECT arrival_s FROM outbox_rate WHERE destination = %(name)s), 0),
       extract(epoch FROM clock_timestamp())::float8
"""
CLAIM_RATE = """
INSERT INTO outbox_rate AS r (destination, rate, arrival_s)
SELECT %(name)s, %(text)s, %(arrival_s)s::float8 FROM set_config('synchronous_commit', 'off', true)
ON CONFLICT (destination) DO UPDATE SET arrival_s = excluded.arrival_s WHERE r.arrival_s = %(was_s)s::float8
"""
