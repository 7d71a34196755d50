"""How things stand, in numbers that add up.

Every message in ``outbox_message`` counts once:

| counted as | when                                                                                       |
|------------|--------------------------------------------------------------------------------------------|
| dead       | a destination of it is a dead letter, whatever becomes of the others: somebody has to look |
| unrouted   | no subscription wants its type                                                             |
| waiting    | otherwise: ready, scheduled, parked, blocked or waiting for a retry                        |

and every other is in the history (``delivered``) or older than the retention. `parked` and `retrying` count
deliveries, as do the numbers of a destination: a message waits once for each that has not taken it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.decide.subscription import wants
from relay.operations.reading import age_s, now
from relay.operations.relays import ALIVE_WITHIN_S, RelayStatus, live_relays

REMOVED = "it is no longer registered, and something still waits for it"
COUNT_AT_MOST = 1_000_000  # beyond that, the history is estimated


@dataclass(frozen=True)
class DestinationStatus:
    """One registered destination.

    Args:
        state: ``healthy``, ``paused``, ``throttled`` or ``off``; ``removed`` while something still waits for it.
        reason: Why it is not healthy.
        waiting: Deliveries that are still to be made.
        dead: Dead letters.
        until: When it is probed or resumes, if that is known.
        paused_by: ``operator`` or ``failure``, unless it is healthy.
    """

    state: str
    reason: str | None = None
    waiting: int = 0
    dead: int = 0
    until: datetime | None = None
    paused_by: str | None = None


@dataclass(frozen=True)
class Status:
    """The whole outbox.

    Args:
        waiting: Messages that are still to be delivered somewhere, and are neither dead nor unrouted.
        scheduled: How many of these are not due yet.
        parked: Deliveries that cannot start now: destination paused or full, or an earlier message waits.
        retrying: Deliveries that failed and wait for their next attempt.
        unrouted: Messages that no subscription wants.
        dead: Messages with a dead letter.
        delivered: Messages in the history that were delivered.
        delivered_is_estimate: Whether the history is so large that it was estimated instead of counted.
        oldest_waiting_s: The age of the oldest message that is due and waits for some destination, also if it is dead
            for another; ``None`` if there is none.
        destinations: The registered destinations, by name; removed ones while something waits for them.
        relays: The relays that are alive.
    """

    waiting: int = 0
    scheduled: int = 0
    parked: int = 0
    retrying: int = 0
    unrouted: int = 0
    dead: int = 0
    delivered: int = 0
    delivered_is_estimate: bool = False
    oldest_waiting_s: float | None = None
    destinations: dict[str, DestinationStatus] = field(default_factory=dict)
    relays: list[RelayStatus] = field(default_factory=list)


def status(connection: sa.Connection, *, alive_within_s: float = ALIVE_WITHIN_S) -> Status:
    """How things stand now.

    Args:
        connection: Best one from `snapshot`: then all numbers are of one moment.
        alive_within_s: See `live_relays`.
    """
    messages = _messages(connection)
    deliveries = _deliveries(connection)
    delivered, estimated = delivered_count(connection)
    waiting = [row for row in messages if not row.dead and row.state != "unrouted"]
    return Status(
        waiting=_total(waiting),
        scheduled=_total(row for row in waiting if row.state == "scheduled"),
        parked=sum(n for (_, state), n in deliveries.items() if state in ("parked", "blocked")),
        retrying=sum(n for (_, state), n in deliveries.items() if state == "retry"),
        unrouted=_total(row for row in messages if row.state == "unrouted" and not row.dead),
        dead=_total(row for row in messages if row.dead),
        delivered=delivered,
        delivered_is_estimate=estimated,
        oldest_waiting_s=_oldest_s([*waiting, *(row for row in messages if row.waits_too)], now(connection)),
        destinations=_destinations(connection, messages, deliveries),
        relays=live_relays(connection, alive_within_s=alive_within_s),
    )


def delivered_count(connection: sa.Connection) -> tuple[int, bool]:
    """How many messages in the history some destination took, and whether that is an estimate.

    A message that operators discarded everywhere is in the history, too, and says so in ``deliveries``.

    On PostgreSQL the planner is asked first: counting a hundred million rows to say "about a hundred million"
    would take a minute and push everything else out of the cache.
    """
    history = tables().history
    if connection.dialect.name == "postgresql":
        plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {history.name}").scalar_one()  # noqa: S608
        estimate = int(plan[0]["Plan"]["Plan Rows"])
        if estimate > COUNT_AT_MOST:
            return estimate, True
    deliveries = sa.cast(history.c.deliveries, sa.Text)
    taken = sa.or_(
        deliveries.is_(None), deliveries.like('%"state": "delivered"%'), deliveries.like('%"state":"delivered"%')
    )
    return connection.scalar(sa.select(sa.func.count()).select_from(history).where(taken)) or 0, False


def _messages(connection: sa.Connection) -> list[sa.Row[Any]]:
    """All messages, by type, by state, and by whether they have a dead letter, and wait elsewhere too: one pass."""
    message, delivery = tables().message, tables().delivery
    other = sa.alias(delivery)
    waits = sa.exists().where(
        other.c.message_id == delivery.c.message_id, other.c.state.in_(["parked", "blocked", "retry"])
    )
    dead = (
        sa.select(delivery.c.message_id, waits.label("waits_too"))
        .where(delivery.c.state == "dead")
        .distinct()
        .subquery()
    )
    is_dead = dead.c.message_id.is_not(None).label("dead")
    query = (
        sa.select(
            message.c.type,
            message.c.state,
            is_dead,
            dead.c.waits_too,
            sa.func.count().label("messages"),
            sa.func.min(message.c.created_at).label("oldest_at"),
            sa.func.min(message.c.due_at).label("first_due_at"),
        )
        .select_from(message.outerjoin(dead, dead.c.message_id == message.c.id))
        .group_by(message.c.type, message.c.state, is_dead, dead.c.waits_too)
    )
    return list(connection.execute(query))


def _deliveries(connection: sa.Connection) -> dict[tuple[str, str], int]:
    delivery = tables().delivery
    query = sa.select(delivery.c.destination, delivery.c.state, sa.func.count()).group_by(
        delivery.c.destination, delivery.c.state
    )
    return {(destination, state): count for destination, state, count in connection.execute(query)}


def _destinations(
    connection: sa.Connection, messages: list[sa.Row[Any]], deliveries: dict[tuple[str, str], int]
) -> dict[str, DestinationStatus]:
    destination = tables().destination
    apart = _settled_apart(connection)
    found = {}
    for row in connection.execute(sa.select(destination).order_by(destination.c.name)):
        set_aside = sum(deliveries.get((row.name, state), 0) for state in ("parked", "blocked", "retry"))
        dead = deliveries.get((row.name, "dead"), 0)
        if row.removed_at is None:
            waiting = _waiting_for(row.events, messages) - apart[row.name] + set_aside
            found[row.name] = DestinationStatus(row.state, row.reason, waiting, dead, row.until, row.paused_by)
        elif set_aside or dead:
            found[row.name] = DestinationStatus("removed", REMOVED, set_aside, dead)
    return found


def _waiting_for(globs: list[str], messages: list[sa.Row[Any]]) -> int:
    """Messages in the read path that a subscription wants; most have no row in ``outbox_delivery``."""
    return _total(row for row in messages if row.state in ("ready", "scheduled") and wants(globs, row.type))


def _settled_apart(connection: sa.Connection) -> Counter[str]:
    """Per destination: deliveries of messages in the read path that do have a row, which counts instead."""
    message, delivery = tables().message, tables().delivery
    query = (
        sa.select(delivery.c.destination, sa.func.count().label("deliveries"))
        .join(message, message.c.id == delivery.c.message_id)
        .where(message.c.state.in_(["ready", "scheduled"]))
        .group_by(delivery.c.destination)
    )
    return Counter({row.destination: row.deliveries for row in connection.execute(query)})


def _oldest_s(waiting: list[sa.Row[Any]], at: datetime) -> float | None:
    """A scheduled message is late from its due time on, and not before."""
    since = [row.first_due_at if row.state == "scheduled" else row.oldest_at for row in waiting]
    due = [instant for instant in since if instant <= at]
    return age_s(min(due), at) if due else None


def _total(rows: Iterable[sa.Row[Any]]) -> int:
    return sum(row.messages for row in rows)
