"""List, pause and resume the registered destinations.

Relays read the registry with every beat. They start nothing more at a destination that an operator paused, until it is
resumed. A resume also ends a state that a relay set: a pause after failures, a Retry-After, a destination that is off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.errors import OutboxError
from outbox.tables import tables
from relay.admin.access.queries import clock
from relay.admin.access.transactions import transaction
from relay.admin.audit import Action
from relay.admin.status import Status, status
from relay.platform.wording import health
from relay.store.changes import nudge


@dataclass(frozen=True)
class DestinationRow:
    """One destination.

    Args:
        state: ``healthy``, ``paused``, ``throttled`` or ``off``; ``removed`` while deliveries still wait for it.
        paused_by: ``operator`` or ``failure``, unless it is healthy.
        reason: Why it is not healthy.
        until: When it is probed or resumes, if known.
        waiting: Deliveries that are still to be made.
        dead: Dead letters.
        events: The event types it wants.
        on_dead: The effect of a dead letter on its key's successors: ``block`` or ``skip``.
        note: For a healthy one: the failure that occurs now and then.
        since: When its state began.
        rate: The attempts that all relays together may start there, such as ``50/s``; ``None``: no limit.
    """

    name: str
    kind: str
    state: str
    paused_by: str | None
    reason: str | None
    until: datetime | None
    waiting: int
    dead: int
    events: list[str] = field(default_factory=list)
    on_dead: str = "block"
    note: str | None = None
    since: datetime | None = None
    rate: str | None = None

    @property
    def health(self) -> str:
        """Its state, in words."""
        return health(
            self.state, paused_by=self.paused_by, note=self.note, since=self.since, until=self.until, rate=self.rate
        )


def list_destinations(connection: sa.Connection) -> list[DestinationRow]:
    """Return the registered destinations, and removed ones while deliveries wait for them."""
    return list_destinations_of(connection, status(connection))


def list_destinations_of(connection: sa.Connection, how: Status) -> list[DestinationRow]:
    """Return the destinations of a status that is known already.

    Args:
        connection: The connection that `how` was read through, in the same snapshot.
        how: The status of the outbox.
    """
    d = tables().destination
    known = {row.name: row for row in connection.execute(sa.select(d))}
    found = how.destinations
    return [
        DestinationRow(
            name,
            known[name].kind,
            each.state,
            known[name].paused_by,
            each.reason,
            each.until,
            each.waiting,
            each.dead,
            list(known[name].events),
            known[name].on_dead,
            each.note,
            each.since,
            each.rate,
        )
        for name, each in found.items()
    ]


def pause(engine: sa.Engine, name: str, *, reason: str | None = None) -> None:
    """Make all relays start nothing more there, from their next beat on. Attempts under way are completed.

    Raises:
        OutboxError: The destination is not registered.
    """
    action = Action("pause", {"destination": name}, reason=reason)
    shown = f"{reason} ({action.actor})" if reason else f"paused by {action.actor}"
    _change(engine, name, action, {"state": "paused", "paused_by": "operator", "reason": shown, "until": None})


def resume(engine: sa.Engine, name: str, *, reason: str | None = None) -> None:
    """Make all relays try a destination again, after a pause or switch-off of any origin.

    Raises:
        OutboxError: The destination is not registered.
    """
    action = Action("resume", {"destination": name}, reason=reason)
    _change(engine, name, action, {"state": "healthy", "paused_by": None, "reason": None, "until": None})


def _change(engine: sa.Engine, name: str, action: Action, values: dict[str, Any]) -> None:
    d = tables().destination
    values |= {"note": None}
    with transaction(engine) as connection:
        at = clock(connection)
        resumed = {"resumed_at": at} if values["state"] == "healthy" else {}
        changed = connection.execute(
            sa.update(d)
            .where(d.c.name == name, d.c.removed_at.is_(None))
            .values(**values, **resumed, since=at, changed_at=at)
        )
        if changed.rowcount != 1:
            raise OutboxError(f"there is no destination {name}: registered are {registered(connection)}")
        action.add(connection, 1)
        nudge(connection)


def registered(connection: sa.Connection) -> str:
    """Return the names of the registered destinations, for a message."""
    d = tables().destination.c
    names = connection.scalars(sa.select(d.name).where(d.removed_at.is_(None)).order_by(d.name))
    return ", ".join(names) or "none yet: `outbox relay` registers the configured ones"
