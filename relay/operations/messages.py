"""One message, wherever it is: waiting, dead, or in the history."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.operations.prospects import Prospects
from relay.operations.reading import matches

MOST = 1000
# Not the data: it may be large, or such that Python cannot parse it.
SHOWN = ("id", "type", "state", "created_at", "subject", "ordering_key", "due_at", "delivered_at")


@dataclass(frozen=True)
class MessageRow:
    """A message in a list.

    Args:
        state: ``ready``, ``scheduled``, ``held``, ``unrouted`` or ``delivered``.
        settled_at: When it was delivered.
        deliveries: Destination → state, for those that are not simply still to come.
    """

    id: str
    type: str
    state: str
    created_at: datetime
    subject: str | None = None
    ordering_key: str | None = None
    due_at: datetime | None = None
    settled_at: datetime | None = None
    deliveries: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeliveryRow:
    """One destination of a message.

    Args:
        state: ``waiting`` when it is simply still to come; else ``parked``, ``blocked``, ``retry``, ``dead``,
            ``delivered`` or ``discarded``.
        attempts: Those that were charged to it.
        due_at: When it is tried next, if that is known.
        reason: Why it failed the last time.
        log: Its last attempts: when, which, the verdict, the reason, and what was answered.
        next: What happens next, in a sentence.
    """

    destination: str
    state: str
    attempts: int
    due_at: datetime | None = None
    reason: str | None = None
    log: list[Any] = field(default_factory=list)
    changed_at: datetime | None = None
    next: str | None = None


@dataclass(frozen=True)
class MessageDetail:
    """Everything that is known of one message.

    Args:
        attempts: What it took until it was delivered.
        shard: The shard it is in, while it is not settled.
        owner: The relay that owns this shard.
        next: What happens next to the message as a whole.
        settled: Each time it became history: once, and once more after each replay.
        inbox: Listener → when it marked the message as done.
    """

    message: MessageRow
    source: str
    data: Any
    headers: dict[str, Any]
    deliveries: list[DeliveryRow]
    attempts: int | None = None
    shard: int | None = None
    owner: str | None = None
    next: str | None = None
    settled: list[datetime] = field(default_factory=list)
    inbox: dict[str, datetime] = field(default_factory=dict)


def list_messages(
    connection: sa.Connection, *, state: str | None = None, type_: str | None = None, limit: int = 20
) -> list[MessageRow]:
    """Messages, newest first: by their ids (UUIDv7), which grow with time and are what both tables have an index on.

    Args:
        connection: To the outbox's database.
        state: A state of `MessageRow`; ``None``: everything that is not delivered yet.
        type_: Only this event type; a ``*`` in it stands for anything. No index serves it: what is newer than the
            last that is found is looked at.
        limit: How many at most, up to 1,000.
    """
    table = tables().history if state == "delivered" else tables().message
    shown = [column for column in table.c if column.name in SHOWN]
    query = sa.select(*shown).order_by(table.c.id.desc()).limit(min(limit, MOST))
    if state not in (None, "delivered"):
        query = query.where(table.c.state == state)
    if type_ is not None:
        query = query.where(matches(table.c.type, type_))
    rows = list(connection.execute(query))
    states = _delivery_states(connection, [] if state == "delivered" else [row.id for row in rows])
    return [_row(row, states.get(row.id)) for row in rows]


def show_message(connection: sa.Connection, message_id: str) -> MessageDetail | None:
    """Where a message is, what happened to it and what happens next.

    Returns:
        ``None`` if it is neither waiting nor in the history.
    """
    t = tables()
    waiting = connection.execute(sa.select(t.message).where(t.message.c.id == message_id)).first()
    settled = connection.execute(
        sa.select(t.history).where(t.history.c.id == message_id).order_by(t.history.c.delivered_at)
    ).all()
    # By listener, so that it rides on the primary key: there may be millions of marks.
    marks = connection.execute(
        sa.select(t.inbox.c.listener, t.inbox.c.done_at).where(
            t.inbox.c.listener.in_(sa.select(t.destination.c.name)), t.inbox.c.message_id == message_id
        )
    ).all()
    past: dict[str, Any] = {
        "settled": [row.delivered_at for row in settled],
        "inbox": {row.listener: row.done_at for row in marks},
    }
    if waiting is not None:
        return _waiting(connection, waiting, past)
    return _settled(settled[-1], past) if settled else None


def _waiting(connection: sa.Connection, row: sa.Row[Any], past: dict[str, Any]) -> MessageDetail:
    prospects = Prospects(connection, row)
    return MessageDetail(
        message=_row(row),
        source=row.source,
        data=row.data,
        headers=row.headers,
        deliveries=_deliveries(connection, row, prospects),
        shard=row.shard,
        owner=prospects.owner,
        next=prospects.of_message(),
        **past,
    )


def _settled(row: sa.Row[Any], past: dict[str, Any]) -> MessageDetail:
    return MessageDetail(
        message=_row(row),
        source=row.source,
        data=row.data,
        headers=row.headers,
        deliveries=_from_history(row),
        attempts=row.attempts,
        next="nothing: it is done",
        **past,
    )


def _deliveries(connection: sa.Connection, message: sa.Row[Any], prospects: Prospects) -> list[DeliveryRow]:
    delivery = tables().delivery
    query = sa.select(delivery).where(delivery.c.message_id == message.id).order_by(delivery.c.destination)
    found = [
        DeliveryRow(
            row.destination,
            row.state,
            row.attempts,
            row.due_at,
            row.reason,
            row.log,
            row.changed_at,
            prospects.of_delivery(row),
        )
        for row in connection.execute(query)
    ]
    known = {each.destination for each in found}
    still_to_come = [
        DeliveryRow(name, "waiting", 0, message.due_at, next=prospects.at_destination(name))
        for name in prospects.wanted_by()
        if name not in known
    ]
    return sorted(found + still_to_come, key=lambda each: each.destination)


def _delivery_states(connection: sa.Connection, ids: list[str]) -> dict[str, dict[str, str]]:
    delivery = tables().delivery
    query = sa.select(delivery.c.message_id, delivery.c.destination, delivery.c.state).where(
        delivery.c.message_id.in_(ids)
    )
    found: dict[str, dict[str, str]] = {}
    for message_id, destination, state in connection.execute(query) if ids else ():
        found.setdefault(message_id, {})[destination] = state
    return found


def _from_history(row: sa.Row[Any]) -> list[DeliveryRow]:
    return [
        DeliveryRow(name, found.get("state", "delivered"), found.get("attempts", 1), reason=found.get("reason"))
        for name, found in sorted((row.deliveries or {}).items())
    ]


def _row(row: sa.Row[Any], deliveries: dict[str, str] | None = None) -> MessageRow:
    settled_at = getattr(row, "delivered_at", None)
    return MessageRow(
        id=str(row.id),
        type=row.type,
        state="delivered" if settled_at else row.state,
        created_at=row.created_at,
        subject=row.subject,
        ordering_key=row.ordering_key,
        due_at=getattr(row, "due_at", None),
        settled_at=settled_at,
        deliveries=deliveries or {},
    )
