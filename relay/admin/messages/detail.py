"""All information about one message, waiting or in the history."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.destinations.subscriptions import Registered
from relay.admin.messages.listing import MessageRow, delivery_states, message_row
from relay.admin.messages.next_steps import NextSteps
from relay.admin.messages.outcomes import OUTCOMES
from relay.decide.verdict import State


@dataclass(frozen=True)
class DeliveryRow:
    """One delivery of a message.

    Args:
        state: ``waiting`` for a delivery without a row; else ``parked``, ``blocked``, ``retry``, ``dead``,
            ``delivered``, ``discarded``, ``cancelled`` or ``expired``.
        attempts: The charged attempts.
        due_at: When it is tried next, if known.
        reason: Why the last attempt failed.
        log: The last attempts: time, number, verdict, reason and answer.
        changed_at: When it got its state; for a delivered one, when it was settled.
        next: The next step, in a sentence.
        taken_at_attempt: The number of the attempt that the destination took, if any.
    """

    destination: str
    state: str
    attempts: int
    due_at: datetime | None = None
    reason: str | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    changed_at: datetime | None = None
    next: str | None = None
    taken_at_attempt: int | None = None


@dataclass(frozen=True)
class MessageDetail:
    """All information about one message.

    Args:
        deliveries: One for each destination, since the last replay of the message.
        attempts: The number of attempts until it was settled.
        shard: Its shard, while it is not settled.
        owner: The relay that owns this shard.
        next: The next step of the message as a whole.
        settled: The times at which it moved to the history: once, and once more after each replay.
        before: Its deliveries before the last replay, by destination.
        inbox: Listener → when it marked the message as processed.
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
    before: list[DeliveryRow] = field(default_factory=list)
    inbox: dict[str, datetime] = field(default_factory=dict)


def show_message(connection: sa.Connection, message_id: str) -> MessageDetail | None:
    """Return where a message is, what happened to it and what happens next.

    Returns:
        ``None`` if the message is neither waiting nor in the history.
    """
    t = tables()
    waiting = connection.execute(sa.select(t.message).where(t.message.c.id == message_id)).first()
    lives = connection.execute(
        sa.select(t.history).where(t.history.c.id == message_id).order_by(t.history.c.delivered_at)
    ).all()
    if waiting is None and not lives:
        return None
    registered = Registered(connection)
    row = lives[-1] if waiting is None else waiting
    facts: dict[str, Any] = {
        "source": row.source,
        "data": row.data,
        "headers": row.headers,
        "settled": [each.delivered_at for each in lives],
        "before": [delivery for each in lives if each is not row for delivery in _from_history(each, registered)],
        "inbox": _marks(connection, message_id),
    }
    if waiting is None:
        deliveries = _from_history(row, registered)
        return MessageDetail(
            message_row(row), deliveries=deliveries, attempts=row.attempts, next="nothing: it is settled", **facts
        )
    prospects = NextSteps(connection, row)
    message = message_row(row, delivery_states(connection, [row.id]).get(row.id))
    return MessageDetail(
        message,
        deliveries=_deliveries(connection, row, prospects),
        shard=row.shard,
        owner=prospects.owner,
        next=prospects.of_settled() if message.state in OUTCOMES else prospects.of_message(),
        **facts,
    )


def _marks(connection: sa.Connection, message_id: str) -> dict[str, datetime]:
    """Return the inbox marks. They are read per listener, along the primary key: there may be millions of marks."""
    i, d = tables().inbox.c, tables().destination.c
    query = sa.select(i.listener, i.done_at).where(i.listener.in_(sa.select(d.name)), i.message_id == message_id)
    return {row.listener: row.done_at for row in connection.execute(query)}


def _deliveries(connection: sa.Connection, message: sa.Row[Any], prospects: NextSteps) -> list[DeliveryRow]:
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
            row.attempts + 1 if row.state == State.DELIVERED else None,
        )
        for row in connection.execute(query)
    ]
    known = {each.destination for each in found}
    still_to_come = [
        DeliveryRow(name, "waiting", 0, message.due_at, next=prospects.of_waiting(name))
        for name in prospects.wanted_by()
        if name not in known
    ]
    return sorted(found + still_to_come, key=lambda each: each.destination)


def _from_history(row: sa.Row[Any], registered: Registered) -> list[DeliveryRow]:
    """Return its deliveries. If every destination took the message at once, its row only holds when it was settled."""
    if row.deliveries is None:
        names = registered.wanted(row.type, row.registered)
        return [
            DeliveryRow(name, State.DELIVERED, 0, changed_at=row.delivered_at, taken_at_attempt=1) for name in names
        ]
    return [_recorded(name, found) for name, found in sorted(row.deliveries.items())]


def _recorded(name: str, found: dict[str, Any]) -> DeliveryRow:
    state, attempts = found["state"], found["attempts"]
    return DeliveryRow(
        name,
        state,
        attempts,
        reason=found.get("reason"),
        changed_at=datetime.fromisoformat(found["at"]).astimezone(UTC),
        taken_at_attempt=attempts + 1 if state == State.DELIVERED else None,
    )
