"""Check what logins without rights on the outbox could do to it, and which session holds the lock of migrations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from relay.databases.postgresql.migration import holder
from relay.databases.postgresql.rights import others_that_create
from relay.databases.rights import MAY_RUN
from relay.observe.text import one_line
from relay.platform.finding import Finding, bad, note, ok

FOREIGN_PARTITIONS = """
SELECT c.relname, pg_get_userbyid(c.relowner) AS owner FROM pg_class AS h
JOIN pg_class AS c ON c.relnamespace = h.relnamespace AND c.relowner <> h.relowner
WHERE h.oid = to_regclass('outbox_history') AND c.relname ~ '^outbox_history_[0-9]{8}' AND c.relkind <> 'i'
ORDER BY c.relname LIMIT 5
"""


def strangers(connection: sa.Connection) -> Iterator[Finding]:
    """Yield findings about other roles: their rights, and the lock and the names that they hold."""
    yield _creators(connection)
    yield _migration_lock(connection)
    yield from _foreign_partitions(connection)


def _creators(connection: sa.Connection) -> Finding:
    """Check which other roles may CREATE in the schema of our tables."""
    found = others_that_create(connection)
    if found is None:
        return ok("schema rights", "no other role may create objects beside our tables")
    return bad("schema rights", f"{found}, where our tables are", MAY_RUN, found.remedy)


def _migration_lock(connection: sa.Connection) -> Finding:
    found = holder(connection)
    if found is None:
        return ok("locks", "no session holds the lock of migrations")
    return note(
        "locks",
        f"the lock of migrations is held by {found}",
        "`outbox db upgrade` waits for it; relays do not",
        "end that session, unless it is a running migration",
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
