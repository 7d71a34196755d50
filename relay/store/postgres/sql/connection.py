"""The first statements of every session, and conditions that many statements share.

The owning session plans its statements with sequential scans, hash and merge joins switched off: an ANALYZE of an empty
queue must not make the planner avoid the one index that each statement needs. For the same reason rows are looked up by
an array of ids, or behind a fence (`LATERAL (… OFFSET 0)`): in another join the planner reads a table that it believes
to be empty through the whole primary key, and then compares the ids (measured: 2 to 5 s for a batch).
"""

from __future__ import annotations

from relay.platform.postgres import session_settings as pinning

IS_OWNER = "current_setting('outbox.owner', true) = %(token)s"

# Index: outbox_destination_generation. Checked once for each statement, in its snapshot: a relay never sees a message
# that was committed after destinations were registered that it does not know.
IS_REGISTERED = "NOT EXISTS (SELECT FROM outbox_destination WHERE generation > %(registered)s)"

# Index scans are switched on explicitly: a role may have switched them off.
SESSION_SETTINGS = {
    **pinning.FORMATS,
    **pinning.MEANINGS,
    **pinning.WRITES,
    "idle_session_timeout": "{lease_ms}",
    "idle_in_transaction_session_timeout": "{lease_ms}",
    "statement_timeout": "{lease_ms}",
    "lock_timeout": "{lock_ms}",
    "synchronous_commit": "on",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
# Only tcp_user_timeout ends a backend that is blocked while it writes. If it writes an error, not even
# pg_terminate_backend ends it, because PostgreSQL reports errors with interrupts held off.
OPTIONAL_SETTINGS = {"client_connection_check_interval": "{check_ms}", "tcp_user_timeout": "{lease_ms}"}

ASSERT_OWNER = f"SELECT {IS_OWNER}"
SNAPSHOT = "SELECT pg_current_snapshot()::text"

# A relay holds *session* advisory locks of one class: one for its presence, and one for each of its shards. They end
# with the session, for any cause.
LOCK_CLASS = """
SELECT hashtext(n.nspname || '.outbox_message') FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
WHERE t.oid = to_regclass('outbox_message')
"""

# The holder of each presence lock, with the shards that name it as their owner.
OWNERS = f"""
SELECT r.number, ARRAY(SELECT s.shard::int FROM outbox_shard AS s WHERE s.relay = r.number ORDER BY 1) AS shards
FROM outbox_relay AS r
JOIN pg_locks AS l ON l.pid = r.backend_pid AND l.objid::bigint = r.presence
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = (({LOCK_CLASS})::bigint & 4294967295)::oid
"""

# A page is small beside its tables, and a table that has just grown was never analysed: look each row up by index.
BY_INDEX = """
SELECT set_config('enable_' || way, 'off', true)
FROM unnest(ARRAY['seqscan', 'bitmapscan', 'hashjoin', 'mergejoin']) AS way
"""
