"""Checks of a PostgreSQL server, of the connection to it, and of our tables in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from relay.databases.postgresql.doctor.replication import replication
from relay.databases.postgresql.doctor.strangers import strangers
from relay.platform.finding import Finding, bad, note, ok
from relay.platform.wording import utc

OLDEST = 140000
LONG_S = 300.0
DEAD_ROWS = 100_000

# Transactions that keep vacuum from removing dead rows, the longest first.
LONG_TRANSACTIONS = """
SELECT pid, usename, state, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age_s,
       application_name FROM pg_stat_activity
WHERE xact_start < clock_timestamp() - make_interval(secs => :seconds) AND pid <> pg_backend_pid()
  AND backend_type = 'client backend' AND datname = current_database()
ORDER BY xact_start LIMIT 5
"""
PREPARED = """
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 AS age_s FROM pg_prepared_xacts
WHERE prepared < clock_timestamp() - make_interval(secs => :seconds) AND database = current_database()
ORDER BY prepared LIMIT 5
"""
OURS = """(to_regclass('outbox_message'), to_regclass('outbox_delivery'), to_regclass('outbox_relay'),
                  to_regclass('outbox_destination'), to_regclass('outbox_shard'))"""
LEFT_ALONE = f"""
SELECT c.relname FROM pg_class AS c CROSS JOIN LATERAL pg_options_to_table(c.reloptions) AS o
WHERE c.oid IN {OURS} AND o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean
ORDER BY c.relname
"""  # noqa: S608 (a constant)
BLOAT = f"""
SELECT s.relname, s.n_live_tup, s.n_dead_tup, greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at,
       pg_total_relation_size(s.relid) AS bytes
FROM pg_stat_user_tables AS s
WHERE s.relid IN {OURS}
  AND s.n_dead_tup > :most AND s.n_dead_tup > s.n_live_tup
ORDER BY s.n_dead_tup DESC
"""  # noqa: S608 (a constant)
MISSING_DAYS = """
SELECT to_char(day, 'YYYY-MM-DD') FROM generate_series(0, 1) AS ahead
CROSS JOIN LATERAL (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date + ahead AS day) AS d
WHERE NOT EXISTS (
    SELECT FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass('outbox_history')
      AND left(c.relname::text, 23) = 'outbox_history_' || to_char(day, 'YYYYMMDD'))
"""


def examine_server(engine: sa.Engine, lease_s: float) -> Iterator[Finding]:
    """Yield findings about the server's settings and the connection to it."""
    with engine.connect() as connection, engine.connect() as other:
        yield _way(connection, other)
        yield version(int(_show(connection, "server_version_num")), _show(connection, "server_version"))
        yield _role(connection)
        yield _commit(connection)
        yield _timeout(connection, lease_s)
        yield _transactions(connection)


def examine_tables(engine: sa.Engine) -> Iterator[Finding]:
    """Yield findings about our tables."""
    with engine.connect() as connection:
        yield _bloat(connection)
        yield _autovacuum(connection)
        yield _partitions(connection)
        yield _notify(connection)
        yield from replication(connection)
        yield from strangers(connection)


def _way(connection: sa.Connection, other: sa.Connection) -> Finding:
    """Check for a pooler: two open connections must have two backends, and keep them across transactions."""
    first, second, third = (_backend(each) for each in (connection, other, connection))
    if first == third != second:
        return ok("connection", "direct, or through a pooler in session mode")
    return bad(
        "connection",
        "there is a pooler in transaction mode between this process and the server",
        "a relay holds its shards by its session, which such a pooler takes away after each transaction",
        "point OUTBOX_DATABASE_URL at the server itself, or at a pooler in session mode; workers may keep theirs",
    )


def _backend(connection: sa.Connection) -> Any:
    pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    connection.rollback()
    return pid


def version(number: int, shown: str) -> Finding:
    if number >= OLDEST:
        return ok("PostgreSQL", f"version {shown}")
    return bad("PostgreSQL", f"version {shown}", "it lacks idle_session_timeout: no lease", "upgrade to 14 or newer")


def _role(connection: sa.Connection) -> Finding:
    if not connection.scalar(sa.text("SELECT pg_is_in_recovery()")):
        return ok("server", "it takes writes")
    return bad(
        "server",
        "it is a standby",
        "a relay owns nothing there, and no data can be written",
        "point OUTBOX_DATABASE_URL at the primary",
    )


def _commit(connection: sa.Connection) -> Finding:
    unsafe = [name for name in ("fsync", "full_page_writes") if _show(connection, name) == "off"]
    if unsafe:
        return bad(
            "durability",
            f"{' and '.join(unsafe)} off",
            "a crash of the server may lose committed results and messages, and damage the database",
            "set them to on, and reload the server",
        )
    level = _show(connection, "synchronous_commit")
    if level == "off":
        return note(
            "durability",
            "synchronous_commit is off",
            "a crash loses the last commits before it; only transactions that emit wait for the disk",
            "set it to on, if results must not be lost",
        )
    return ok("durability", f"synchronous_commit is {level}")


def _timeout(connection: sa.Connection, lease_s: float) -> Finding:
    try:
        connection.execute(
            sa.text("SELECT set_config('idle_session_timeout', :ms, true)"), {"ms": str(int(lease_s * 1000))}
        )
    except sa.exc.DBAPIError as error:
        return bad(
            "lease",
            f"idle_session_timeout is not accepted: {' '.join(str(error.orig).split())}",
            "the server cannot end a relay that has frozen, so its shards wait until a peer does",
            "use PostgreSQL 14 or newer, without a pooler that filters settings",
        )
    finally:
        connection.rollback()
    return ok("lease", f"the server ends a relay that is silent for {lease_s:g} s")


def _transactions(connection: sa.Connection) -> Finding:
    found = [
        f"pid {row.pid} ({row.usename}, {row.application_name or 'unnamed'}), {row.state}, for {row.age_s:,.0f} s"
        for row in connection.execute(sa.text(LONG_TRANSACTIONS), {"seconds": LONG_S})
    ] + [
        f"prepared transaction {row.gid}, for {row.age_s:,.0f} s"
        for row in connection.execute(sa.text(PREPARED), {"seconds": LONG_S})
    ]
    if not found:
        return ok("long transactions", f"none longer than {LONG_S / 60:g} minutes")
    return note(
        "long transactions",
        "; ".join(found),
        "vacuum cannot remove newer dead rows, so tables grow; its own messages are not sent before it commits",
        "end it if it was forgotten: SELECT pg_terminate_backend(pid), or ROLLBACK PREPARED",
    )


def _bloat(connection: sa.Connection) -> Finding:
    rows: list[Any] = list(connection.execute(sa.text(BLOAT), {"most": DEAD_ROWS}))
    if not rows:
        return ok("bloat", "few dead rows in our tables")
    shown = "; ".join(
        f"{r.relname}: {r.n_dead_tup:,} dead rows beside {r.n_live_tup:,}, {r.bytes / 2**20:,.0f} MiB, last vacuum "
        f"{utc(r.vacuumed_at)}"
        if r.vacuumed_at
        else f"{r.relname}: {r.n_dead_tup:,} dead rows, never vacuumed"
        for r in rows
    )
    return note(
        "bloat",
        shown,
        "the relays' reads stay fast, but disk and cache fill up",
        "end long transactions; then VACUUM the table; if it happens again, raise autovacuum_max_workers",
    )


def _autovacuum(connection: sa.Connection) -> Finding:
    why = "our tables are rewritten all day and grow without it"
    off = [name for name in ("autovacuum", "track_counts") if _show(connection, name) == "off"]
    if off:
        return bad("autovacuum", f"{' and '.join(off)} off", why, f"set {' and '.join(off)} to on")
    tables = list(connection.scalars(sa.text(LEFT_ALONE)))
    if tables:
        shown = ", ".join(tables)
        return bad("autovacuum", f"off for {shown}", why, "ALTER TABLE … RESET (autovacuum_enabled), for each of them")
    return ok("autovacuum", "on")


def _partitions(connection: sa.Connection) -> Finding:
    missing = list(connection.scalars(sa.text(MISSING_DAYS)))
    if not missing:
        return ok("history", "it has partitions for today and tomorrow")
    return note(
        "history",
        f"no partition for {', '.join(missing)}",
        "relays create them in advance; a partition that is created when a message needs it locks the table under load",
        "start a relay, or look for housekeeping_failed in its log",
    )


def _notify(connection: sa.Connection) -> Finding:
    if connection.scalar(sa.text("SELECT last_value FROM outbox_wake")) == 0:
        return note(
            "wake-up",
            "workers never notify",
            "relays poll every 100 ms instead, which costs latency and queries",
            "nothing, if you use two-phase commit; else remove OUTBOX_NOTIFY=false and run "
            "SELECT setval('outbox_wake', 1)",
        )
    if int(_show(connection, "max_prepared_transactions")) > 0:
        return note(
            "wake-up",
            "prepared transactions are enabled here",
            "a transaction that emits cannot be prepared while a relay sleeps: NOTIFY and PREPARE exclude each other",
            "if you use PREPARE TRANSACTION: OUTBOX_NOTIFY=false for all relays, and SELECT setval('outbox_wake', 0)",
        )
    return ok("wake-up", "workers notify sleeping relays")


def _show(connection: sa.Connection, name: str) -> str:
    return str(connection.scalar(sa.text("SELECT current_setting(:name)"), {"name": name}))
