"""What every session says first, and what it asks again and again.

The owning session plans its statements with sequential scans, hash and merge joins switched off: an ANALYZE that sees
an empty queue must not be able to talk the planner out of the one index each of them needs. For the same reason a row
is looked up by an array of ids, or behind a fence (`LATERAL (… OFFSET 0)`): joined in any other way, a table believed
to be empty is read from one end of its primary key to the other, and matched with the ids afterwards (measured: 2 to
5 s for a batch).
"""

from __future__ import annotations

from relay.platform import session_settings as pinning

IS_OWNER = "current_setting('outbox.owner', true) = %(token)s"

# Index: outbox_destination_generation. Asked for once a statement, and in its own snapshot: a message that was
# committed after others were registered is never seen by a relay that does not know of them.
IS_REGISTERED = "NOT EXISTS (SELECT FROM outbox_destination WHERE generation > %(registered)s)"

# The planner is told what to use, too: a role may have switched off the very thing that each statement relies on.
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
# tcp_user_timeout reaches what nothing else does: a backend that is held up while it writes heeds no other timeout, and
# one that writes an error not even pg_terminate_backend, because PostgreSQL reports errors with interrupts held off.
OPTIONAL_SETTINGS = {"client_connection_check_interval": "{check_ms}", "tcp_user_timeout": "{lease_ms}"}

ASSERT_OWNER = f"SELECT {IS_OWNER}"
SNAPSHOT = "SELECT pg_current_snapshot()::text"
