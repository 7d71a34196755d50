"""The relays that own shards now: those with a living session.

A beat outlives its relay, a session does not. On PostgreSQL the session holds the locks that make an owner, and the
server's lock table shows them. An SQLite file has one owner, which holds the lock of its side file. So a dead relay
leaves this list at once, and no shard has two owners in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import age_s, now
from relay.store.presence import LOCK_CLASS, is_owned

ALIVE_WITHIN_S = 30.0  # two default leases, where locks cannot be seen: on a replica, or in another machine's file

# The holder of each presence lock, with the shards that name it as their owner.
OWNERS = f"""
SELECT r.number, ARRAY(SELECT s.shard::int FROM outbox_shard AS s WHERE s.relay = r.number ORDER BY 1) AS shards
FROM outbox_relay AS r
JOIN pg_locks AS l ON l.pid = r.backend_pid AND l.objid::bigint = r.presence
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = (({LOCK_CLASS})::bigint & 4294967295)::oid
"""  # noqa: S608


@dataclass(frozen=True)
class RelayStatus:
    """One relay.

    Args:
        id: Its name: host, process id, and a suffix that differs between starts.
        shards: The shards that it owns, in order.
        last_seen_s: Seconds since its last beat, by the database's clock.
        release: The release that it runs.
        started_at: When it started.
    """

    id: str
    shards: list[int] = field(default_factory=list)
    last_seen_s: float = 0.0
    release: str = ""
    started_at: datetime | None = None


def live_relays(connection: sa.Connection) -> list[RelayStatus]:
    """Return the relays that have a session, in the order of their start, with the shards that each owns."""
    relay, at = tables().relay, now(connection)
    rows = connection.execute(sa.select(relay).order_by(relay.c.number)).all()
    owned = _owned(connection, rows, at)
    return [
        RelayStatus(row.id, sorted(owned[row.number]), age_s(row.last_seen_at, at), row.release, row.started_at)
        for row in rows
        if row.number in owned
    ]


def _owned(connection: sa.Connection, rows: Sequence[sa.Row[Any]], at: datetime) -> dict[int, list[int]]:
    """Return the number of each relay that has a session, with its shards."""
    since = at - timedelta(seconds=ALIVE_WITHIN_S)
    beating = {row.number: row.shards for row in rows if row.last_seen_at > since}
    if connection.dialect.name != "postgresql":
        path = connection.engine.url.database
        owned = is_owned(Path(path)) if path else False
        last = {row.number: row.shards for row in rows[-1:]}  # there is only one at a time
        return last if owned or (owned is None and last.keys() <= beating.keys()) else {}
    if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one():
        return beating
    return {row.number: row.shards for row in connection.exec_driver_sql(OWNERS)}
