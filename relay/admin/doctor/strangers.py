"""Checks for logins without rights on the outbox: what they could do to it, and which of our locks they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from relay.admin.doctor.finding import Finding, bad, note, ok
from relay.observe.text import one_line
from relay.platform.migration_lock import MIGRATION_LOCK
from relay.platform.rights import MAY_RUN, others_that_create
from relay.store.postgres.sql.connection import LOCK_CLASS
from relay.store.postgres.sql.ownership import MAY_OWN

HOLDERS = f"""
SELECT l.pid, a.usename, a.application_name, count(*) AS locks,
       bool_or(l.objsubid = 2 AND {MAY_OWN.format(pid="l.pid")}) AS is_respected
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.objsubid = 2 AND l.classid = (CAST(:key AS bigint) & 4294967295)::oid
       OR l.objsubid = 1 AND l.classid = {MIGRATION_LOCK >> 32} AND l.objid = {MIGRATION_LOCK & 0xFFFFFFFF})
  AND NOT EXISTS (SELECT FROM outbox_relay AS r WHERE r.backend_pid = l.pid)
GROUP BY l.pid, a.usename, a.application_name ORDER BY l.pid
"""  # noqa: S608 (a constant)
FOREIGN_PARTITIONS = """
SELECT c.relname, pg_get_userbyid(c.relowner) AS owner FROM pg_class AS h
JOIN pg_class AS c ON c.relnamespace = h.relnamespace AND c.relowner <> h.relowner
WHERE h.oid = to_regclass('outbox_history') AND c.relname ~ '^outbox_history_[0-9]{8}' AND c.relkind <> 'i'
ORDER BY c.relname LIMIT 5
"""


def strangers(engine: sa.Engine) -> Iterator[Finding]:
    """Yield findings about the rights of other roles, and the locks that they hold."""
    with engine.connect() as connection:
        yield creators(connection)
        yield _holders(connection)
        yield from _foreign_partitions(connection)


def creators(connection: sa.Connection) -> Finding:
    """Check which other roles may CREATE in the schema of our tables."""
    found = others_that_create(connection)
    if found is None:
        return ok("schema rights", "no other role may create objects beside our tables")
    what = f"{', '.join(found.roles)} may CREATE in the schema {found.schema}, where our tables are"
    return bad(
        "schema rights", what, MAY_RUN, f"{found.revoke}; or give the outbox a schema of its own (OUTBOX_SCHEMA)"
    )


def _holders(connection: sa.Connection) -> Finding:
    key = connection.scalar(sa.text(LOCK_CLASS))
    rows: list[Any] = list(connection.execute(sa.text(HOLDERS), {"key": key}))
    if not rows:
        return ok("locks", "only relays hold the locks of relays")
    what = "; ".join(
        f"pid {row.pid} (role {row.usename}, {one_line(row.application_name or 'unnamed')}) holds {row.locks}"
        if row.pid
        else f"a prepared transaction holds {row.locks}"
        for row in rows
    )
    ends = "; ".join(f"SELECT pg_terminate_backend({row.pid})" for row in rows if row.pid) or "see pg_prepared_xacts"
    remedy = f"if it is neither a relay that is ending nor a running migration: {ends}"
    if any(row.is_respected for row in rows):
        return bad("locks", f"{what} of our locks, and is not a relay", "no relay can own these shards", remedy)
    return note(
        "locks",
        f"{what} of our locks, and is not a relay",
        "relays own their shards all the same, because its role has no rights; `outbox db upgrade` may wait for it",
        remedy,
    )


def _foreign_partitions(connection: sa.Connection) -> Iterator[Finding]:
    rows: list[Any] = list(connection.execute(sa.text(FOREIGN_PARTITIONS)))
    if rows:
        yield note(
            "names",
            ", ".join(f"{one_line(row.relname)} (owned by {one_line(row.owner)})" for row in rows),
            "other roles took the names of history partitions; relays ignore these tables and use other names",
            "ask the owner, or as a superuser DROP them",
        )
