"""Find what a drain left: which due deliveries were not made, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.opening import opened_snapshot
from relay.admin.access.queries import now
from relay.admin.counts import unrouted_types
from relay.admin.destinations.subscriptions import Registered
from relay.admin.status import word_of
from relay.decide.verdict import WAITING, State
from relay.platform.wording import counted
from relay.settings import Settings


@dataclass(frozen=True)
class Leftover:
    """Deliveries that were left for the same reason.

    Args:
        destination: Their destination; ``None`` for messages that no subscription wants.
        count: Their count.
        why: The reason, in a form that can follow "… for api: ".
    """

    destination: str | None
    count: int
    why: str

    def __str__(self) -> str:
        if self.destination is None:
            return f"{counted(self.count, 'message')}: {self.why}"
        return f"{self.count:,} for {self.destination}: {self.why}"


def what_is_left(settings: Settings, began_at: float, failing: Mapping[str, str] | None = None) -> Sequence[Leftover]:
    """Return what a drain left, over a separate connection.

    Args:
        settings: The settings of the database.
        began_at: When the drain began, in seconds of the monotonic clock.
        failing: Destination → the reason of this relay's failed attempts that have no verdict yet.

    Raises:
        OutboxError: The database cannot be queried.
    """
    with opened_snapshot(settings) as connection:
        return leftover(connection, since_s=monotonic() - began_at, failing=failing or {})


def leftover(connection: sa.Connection, *, since_s: float, failing: Mapping[str, str]) -> list[Leftover]:
    """Return the deliveries that are due and were not made.

    Args:
        connection: A connection from `snapshot`.
        since_s: How long ago the drain began, in seconds. Earlier dead letters are left out, and so are unread messages
            that were emitted after that: the drain was not meant to deliver them.
        failing: Destination → the reason of a relay's failed attempts that have no verdict yet.
    """
    began_at = now(connection) - timedelta(seconds=since_s)
    registered = Registered(connection)
    found = [
        *_set_aside(connection, registered, failing),
        *_unread(connection, registered, began_at, failing),
        *_dead(connection, began_at),
        *(Leftover(None, count, f"no subscription wants {type_}") for type_, count in unrouted_types(connection)),
    ]
    counts: Counter[tuple[str | None, str]] = Counter()
    for each in found:
        counts[each.destination, each.why] += each.count
    return [Leftover(destination, count, why) for (destination, why), count in counts.items()]


def _set_aside(connection: sa.Connection, registered: Registered, failing: Mapping[str, str]) -> Iterator[Leftover]:
    d = tables().delivery.c
    query = (
        sa.select(d.destination, d.state, sa.func.count(), sa.func.min(d.reason))
        .where(d.state.in_(WAITING))
        .group_by(d.destination, d.state)
        .order_by(d.destination, d.state)
    )
    for name, state, count, reason in connection.execute(query):
        yield Leftover(name, count, _trouble(registered.rows.get(name)) or _why(state, reason or failing.get(name)))


def _why(state: str, reason: str | None) -> str:
    if state == State.BLOCKED:
        return "behind an earlier message of their key"
    return f"tried again later ({reason})" if reason else "set aside"


def _trouble(row: Any) -> str | None:
    """Return why a destination takes no messages; ``None`` if it takes messages."""
    if row is None or row.removed_at is not None:
        return "it is no longer registered"
    if row.state == "healthy":
        return None
    if row.paused_by == "operator":
        return f"an operator paused it ({row.reason})"
    return f"it is {word_of(row)} ({row.reason})"


def _unread(
    connection: sa.Connection, registered: Registered, began_at: datetime, failing: Mapping[str, str]
) -> Iterator[Leftover]:
    """Yield deliveries that are neither settled nor set aside: a relay holds them, or no relay has read them."""
    m = tables().message.c
    is_due = sa.or_(
        sa.and_(m.state == State.READY, m.created_at <= began_at),
        sa.and_(m.state == State.SCHEDULED, m.due_at <= began_at),
    )
    query = sa.select(m.type, sa.func.count()).where(is_due).group_by(m.type)
    counts: dict[str, int] = {}
    for type_, count in connection.execute(query):
        for name in registered.wanting(type_):
            counts[name] = counts.get(name, 0) + count
    for name, count in sorted(counts.items()):
        why = (
            _why(State.RETRY, failing[name])
            if name in failing
            else "not settled: under way, or another relay owns them"
        )
        yield Leftover(name, count, _trouble(registered.rows[name]) or why)


def _dead(connection: sa.Connection, began_at: datetime) -> Iterator[Leftover]:
    d = tables().delivery.c
    query = (
        sa.select(d.destination, sa.func.count(), sa.func.min(d.reason))
        .where(d.state == State.DEAD, d.changed_at >= began_at)
        .group_by(d.destination)
        .order_by(d.destination)
    )
    for name, count, reason in connection.execute(query):
        yield Leftover(name, count, f"dead letters ({reason}); see `outbox dead list`")
