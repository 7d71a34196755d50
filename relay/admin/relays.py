"""The relays that own shards now: those with a living session.

A beat stays in the table after its relay has died, but a session does not stay. On PostgreSQL the session holds the
locks that make an owner, and the server's lock table shows them. An SQLite file has one owner, which holds the lock of
its side file. So a dead relay leaves this list at once, and no shard has two owners in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import age_s, now
from relay.databases.dialect import dialect_of

ALIVE_WITHIN_S = 30.0  # two default leases, if locks cannot be seen: on a replica, or in a file of another machine


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
    """Return the relays that have a session, in the order in which they started, with the shards that each owns."""
    relay, at = tables().relay, now(connection)
    rows = connection.execute(sa.select(relay).order_by(relay.c.number)).all()
    since = at - timedelta(seconds=ALIVE_WITHIN_S)
    beating = {row.number: row.shards for row in rows if row.last_seen_at > since}
    owned = dialect_of(connection).owned(connection, rows, beating)
    return [
        RelayStatus(row.id, sorted(owned[row.number]), age_s(row.last_seen_at, at), row.release, row.started_at)
        for row in rows
        if row.number in owned
    ]
