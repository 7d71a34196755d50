"""The relays that are alive."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from outbox.tables import tables
from relay.operations.reading import age_s, now

ALIVE_WITHIN_S = 30.0  # two leases of the default length: after that, peers end its session


@dataclass(frozen=True)
class RelayStatus:
    """One relay.

    Args:
        id: Its name: host, process, and what tells two starts apart.
        shards: Those that it owns, in order.
        last_seen_s: Seconds since its last beat, by the database's clock.
        release: What it runs.
        started_at: Since when.
    """

    id: str
    shards: list[int] = field(default_factory=list)
    last_seen_s: float = 0.0
    release: str = ""
    started_at: datetime | None = None


def live_relays(connection: sa.Connection, *, alive_within_s: float = ALIVE_WITHIN_S) -> list[RelayStatus]:
    """The relays that have shown themselves lately, in the order of their start.

    Args:
        connection: To the outbox's database.
        alive_within_s: How long ago the last beat may be; two leases is what relays themselves go by.
    """
    relay = tables().relay
    at = now(connection)
    rows = connection.execute(
        sa.select(relay).where(relay.c.last_seen_at > at - timedelta(seconds=alive_within_s)).order_by(relay.c.number)
    )
    return [
        RelayStatus(row.id, sorted(row.shards), age_s(row.last_seen_at, at), row.release, row.started_at)
        for row in rows
    ]
