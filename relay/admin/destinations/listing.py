"""List, pause and resume the registered destinations.

Relays read the registry with every beat. They start no more attempts at a destination that an operator paused, until it
is resumed. A resume also ends a state that a relay set: a pause after failures, a wait for a Retry-After, or ``off``.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.errors import OutboxError
from outbox.tables import tables
from relay.admin.access.transactions import transaction
from relay.admin.audit import Action
from relay.admin.status import DestinationStatus, status
from relay.databases.dialect import dialect_of


def list_destinations(connection: sa.Connection) -> list[DestinationStatus]:
    """Return the registered destinations, and removed destinations as long as deliveries wait for them."""
    return list(status(connection).destinations.values())


def pause(engine: sa.Engine, name: str, *, reason: str | None = None) -> None:
    """Make all relays start no more attempts there, from their next beat on. Attempts under way are completed.

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
        dialect = dialect_of(connection)
        at = dialect.CLOCK
        resumed = {"resumed_at": at} if values["state"] == "healthy" else {}
        changed = connection.execute(
            sa.update(d)
            .where(d.c.name == name, d.c.removed_at.is_(None))
            .values(**values, **resumed, since=at, changed_at=at)
        )
        if changed.rowcount != 1:
            refuse_unknown(connection, name, even_removed=True)
        action.add(connection, 1)
        dialect.nudge(connection)


def refuse_unknown(connection: sa.Connection, name: str | None, *, even_removed: bool = False) -> None:
    """Refuse a name that no destination has or had: it may be misspelt.

    Args:
        connection: To the outbox's database.
        name: The name; ``None`` is accepted.
        even_removed: Whether to refuse the name of a destination that is not registered any more, too.

    Raises:
        OutboxError: There is no such destination. The text names the registered ones.
    """
    d = tables().destination.c
    is_known = d.removed_at.is_(None) if even_removed else sa.true()
    if name is not None and connection.scalar(sa.select(d.name).where(d.name == name, is_known)) is None:
        registered = ", ".join(names(connection)) or "none yet: `outbox relay` registers the configured ones"
        raise OutboxError(f"there is no destination {name}; registered: {registered}")


def names(connection: sa.Connection) -> list[str]:
    """Return the names of the registered destinations."""
    d = tables().destination.c
    return list(connection.scalars(sa.select(d.name).where(d.removed_at.is_(None)).order_by(d.name)))
