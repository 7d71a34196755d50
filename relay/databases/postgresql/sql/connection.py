"""The first statements of every session, and conditions that many statements share.

The owning session switches off sequential scans, hash joins and merge joins: an ANALYZE of an empty queue must not make
the planner avoid the one index that each statement needs. For the same reason rows are looked up by an array of ids, or
behind a fence (`LATERAL (… OFFSET 0)`): in another join the planner reads a table that it believes to be empty through
the whole primary key, and then compares the ids (measured: 2 to 5 s for a batch).
"""

from __future__ import annotations

from relay.databases.postgresql.connections import session_settings as pinning

IS_OWNER = "current_setting('outbox.owner', true) = %(token)s"

# Index: outbox_destination_generation. Checked once for each statement, in its snapshot: if destinations are registered
# that a relay does not know, it never sees messages that were committed after that.
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
# Only tcp_user_timeout ends a backend that is blocked while it writes. If the backend is writing an error, not even
# pg_terminate_backend ends it, because PostgreSQL reports errors with interrupts held off.
OPTIONAL_SETTINGS = {"client_connection_check_interval": "{check_ms}", "tcp_user_timeout": "{lease_ms}"}

ASSERT_OWNER = f"SELECT {IS_OWNER}"
SNAPSHOT = "SELECT pg_current_snapshot()::text"

# A page is small compared with its tables, and a table that has just grown was never analysed: look each row up by
# index.
BY_INDEX = """
SELECT set_config('enable_' || way, 'off', true)
FROM unnest(ARRAY['seqscan', 'bitmapscan', 'hashjoin', 'mergejoin']) AS way
"""
