"""The status of the outbox, in numbers that add up.

All numbers are taken at one moment, and each has one definition. Messages and deliveries are counted separately: a
message has a delivery for each destination that wants it.

| a message counts as  | when                                                                               |
|----------------------|------------------------------------------------------------------------------------|
| waiting              | a delivery of it is still to be made: ready, scheduled, parked, blocked or retried |
| dead                 | a delivery of it is a dead letter: an operator has to act                          |
| unrouted             | no subscription wants its type                                                     |
| delivered            | all its deliveries are done, and a destination took it                             |
| cancelled, discarded | all its deliveries are done, and no destination took it: an operator gave it up    |
| expired              | all its deliveries are done, and no destination took it: its time had passed       |

A message counts once, with one exception: a message that is dead at one destination and waits for another counts as
both, and `waiting_and_dead` counts such messages. `delivered`, `cancelled`, `discarded` and `expired` reach back as far
as the history, and count a message once more after each replay.

`parked`, its part `blocked`, and `retrying` count deliveries, and are the sums over the destinations. For a
destination, `parked` and `retrying` are parts of its `waiting`.

To count means to read every row, so a backlog of millions is estimated from a sample of its pages or rows. A message
that was set aside for several destinations may then count once for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import now
from relay.admin.counts import COUNT_AT_MOST, History, Messages, history_counts
from relay.admin.messages.outcomes import OUTCOMES
from relay.admin.relays import RelayStatus, live_relays
from relay.databases.dialect import dialect_of
from relay.decide.subscription import wants
from relay.decide.verdict import READ_PATH, State
from relay.platform.wording import utc

APART = (State.BLOCKED, State.RETRY, State.DEAD)
REMOVED = "it is no longer registered, and deliveries still wait for it"


@dataclass(frozen=True)
class DestinationStatus:
    """One registered destination.

    Args:
        state: ``healthy``, ``paused``, ``throttled`` or ``off``; ``removed`` while deliveries still wait for it.
        reason: Why it is not healthy.
        waiting: Deliveries that are still to be made.
        dead: Dead letters.
        events: The event types it wants.
        on_dead: The effect of a dead letter on its key's successors: ``block`` or ``skip``.
        until: When it is probed or resumes, if known.
        paused_by: ``operator`` or ``failure``, unless it is healthy.
        parked: Waiting deliveries that cannot start now: the destination is paused or full, or an earlier message
            waits.
        blocked: Of the parked ones, those behind an earlier message of their key that is not done.
        retrying: Waiting deliveries that have failed and wait for their next attempt.
        note: For a healthy destination: the failure that occurs now and then, such as ``7 % failing``.
        since: When its state began.
        rate: How many attempts all relays together may start there, such as ``50/s``; ``None``: no limit.
    """

    name: str
    kind: str
    state: str
    reason: str | None = None
    waiting: int = 0
    dead: int = 0
    events: list[str] = field(default_factory=list)
    on_dead: str = "block"
    until: datetime | None = None
    paused_by: str | None = None
    parked: int = 0
    blocked: int = 0
    retrying: int = 0
    note: str | None = None
    since: datetime | None = None
    rate: str | None = None

    @property
    def health(self) -> str:
        """Its state in words: ``healthy, 7 % failing``, ``healthy, at most 50/s``, ``down since …``."""
        began = f" since {utc(self.since)}" if self.since is not None else ""
        match word_of(self):
            case "healthy":
                return ", ".join(filter(None, ["healthy", self.note, self.rate and f"at most {self.rate}"]))
            case "down":
                return f"down{began}" + (f", probing at {utc(self.until)}" if self.until is not None else "")
            case "paused":
                return f"paused{began}"
            case "throttled":
                return "throttled" + (f" until {utc(self.until)}" if self.until is not None else "")
            case "off":
                return f"switched off{began}"
        return self.state


def word_of(destination: Any) -> str:
    """Return the state of a destination in a word: ``down`` if relays paused it after failures."""
    is_down = destination.state == "paused" and destination.paused_by == "failure"
    return "down" if is_down else str(destination.state)


@dataclass(frozen=True)
class Status:
    """The status of the whole outbox.

    Args:
        waiting: Messages that are still to be delivered to a destination.
        scheduled: Of the waiting ones, those that are not due yet.
        waiting_and_dead: Of the waiting ones, those that are dead letters at another destination.
        parked: Deliveries that cannot start now: destination paused or full, or an earlier message waits.
        blocked: Of the parked ones, those behind an earlier message of their key that is not done.
        retrying: Deliveries that failed and wait for their next attempt.
        unrouted: Messages that no subscription wants.
        dead: Messages with a dead letter.
        delivered: Messages that were delivered.
        discarded: Messages that an operator discarded and that no destination took.
        cancelled: Messages that an operator cancelled and that no destination took.
        expired: Messages whose time had passed and that no destination took.
        delivered_is_estimate: Whether `delivered` is an estimate, because the history is too large to count.
        is_estimate: Whether the numbers of messages and deliveries outside the history are estimates, because there
            are too many to count.
        oldest_waiting_s: The age of the oldest message that waits and is due; ``None`` if there is none.
        destinations: The registered destinations, by name, and removed ones as long as deliveries wait for them.
        relays: The relays that are alive.
    """

    waiting: int = 0
    scheduled: int = 0
    waiting_and_dead: int = 0
    parked: int = 0
    blocked: int = 0
    retrying: int = 0
    unrouted: int = 0
    dead: int = 0
    delivered: int = 0
    discarded: int = 0
    cancelled: int = 0
    expired: int = 0
    delivered_is_estimate: bool = False
    is_estimate: bool = False
    oldest_waiting_s: float | None = None
    destinations: dict[str, DestinationStatus] = field(default_factory=dict)
    relays: list[RelayStatus] = field(default_factory=list)


def status(connection: sa.Connection, *, count_at_most: int | None = None) -> Status:
    """Return the status now.

    Args:
        connection: A connection from `snapshot`, so that all numbers are taken at one moment.
        count_at_most: The number of unsettled messages, and of settled ones, beyond which they are estimated;
            by default a million.
    """
    relays = live_relays(connection)  # must come first: locks are not part of a snapshot
    history = history_counts(connection, count_at_most=count_at_most)
    if dialect_of(connection).estimate_beyond(connection, "outbox_message", count_at_most or COUNT_AT_MOST) is not None:
        return _estimated(connection, relays, history)
    messages = Messages(connection)
    apart = _settled_apart(connection)
    destinations = _destinations(
        connection, _deliveries(connection), lambda name, events: _unread_for(events, messages.unread) - apart[name]
    )
    return Status(
        waiting=messages.waiting,
        scheduled=messages.scheduled,
        waiting_and_dead=messages.waiting_and_dead,
        unrouted=messages.unrouted,
        dead=messages.dead,
        oldest_waiting_s=messages.oldest_waiting_s(now(connection)),
        **_common(relays, destinations, history, history.counts + messages.settled),
    )


def _estimated(connection: sa.Connection, relays: list[RelayStatus], history: History) -> Status:
    """Return the status of a backlog that is too large to be counted."""
    from relay.admin.timeline.backlog import sample  # imported late, because a small outbox does not need it

    found = sample(connection, relays=relays)
    deliveries = {
        (name, state): count
        for name, each in found.destinations.items()
        for state, count in ({**each.waiting, State.DEAD: each.dead}).items()
    }
    destinations = _destinations(
        connection, deliveries, lambda name, _: sum(found.destinations[name].waiting[state] for state in READ_PATH)
    )
    set_aside = sum(each.parked + each.retrying for each in destinations.values())
    held = found.messages[State.HELD]
    return Status(
        waiting=sum(found.messages[state] for state in READ_PATH) + min(set_aside, held),
        scheduled=found.messages[State.SCHEDULED],
        unrouted=found.unrouted,
        dead=min(sum(each.dead for each in destinations.values()), held),
        oldest_waiting_s=found.oldest_due_s or None,
        is_estimate=True,
        **_common(relays, destinations, history, history.counts),
    )


def _common(
    relays: list[RelayStatus], destinations: dict[str, DestinationStatus], history: History, settled: Counter[str]
) -> dict[str, Any]:
    """Return the fields of `Status` that are found in the same way for any backlog; `settled` has the outcomes."""
    sums = {
        name: sum(getattr(each, name) for each in destinations.values()) for name in ("parked", "blocked", "retrying")
    }
    counts = {str(outcome): settled[outcome] for outcome in OUTCOMES}
    estimate = {"delivered_is_estimate": history.is_estimate}
    return {**sums, **counts, **estimate, "destinations": destinations, "relays": relays}


def _deliveries(connection: sa.Connection) -> dict[tuple[str, str], int]:
    delivery = tables().delivery
    query = sa.select(delivery.c.destination, delivery.c.state, sa.func.count()).group_by(
        delivery.c.destination, delivery.c.state
    )
    return {(destination, state): count for destination, state, count in connection.execute(query)}


def _destinations(
    connection: sa.Connection, deliveries: Mapping[tuple[str, str], int], unread: Callable[[str, list[str]], int]
) -> dict[str, DestinationStatus]:
    """Return the destinations.

    Args:
        connection: To the outbox's database.
        deliveries: (destination, state) → deliveries that were set aside or are dead.
        unread: Returns the messages in the read path that wait for a destination, from its name and its subscription.
    """
    destination, rates = tables().destination, _rates(connection)
    found = {}
    for row in connection.execute(sa.select(destination).order_by(destination.c.name)):
        blocked, retrying, dead = (deliveries.get((row.name, state), 0) for state in APART)
        parked = deliveries.get((row.name, State.PARKED), 0) + blocked
        set_aside = parked + retrying
        is_removed = row.removed_at is not None
        if is_removed and not (set_aside or dead):
            continue
        found[row.name] = DestinationStatus(
            row.name,
            row.kind,
            "removed" if is_removed else row.state,
            REMOVED if is_removed else row.reason,
            set_aside if is_removed else unread(row.name, row.events) + set_aside,
            dead,
            list(row.events),
            row.on_dead,
            row.until,
            row.paused_by,
            parked,
            blocked,
            retrying,
            row.note,
            row.since,
            rates.get(row.name),
        )
    return found


def _rates(connection: sa.Connection) -> dict[str, str | None]:
    r = tables().rate.c
    return {row.destination: row.rate for row in connection.execute(sa.select(r.destination, r.rate))}


def _unread_for(globs: list[str], unread: Iterable[tuple[str, int]]) -> int:
    """Count messages in the read path that a subscription wants; most have no row in ``outbox_delivery``."""
    return sum(count for type_, count in unread if wants(globs, type_))


def _settled_apart(connection: sa.Connection) -> Counter[str]:
    """Count, per destination, deliveries that have a row although their message is in the read path: the row counts."""
    message, delivery = tables().message, tables().delivery
    query = (
        sa.select(delivery.c.destination, sa.func.count().label("deliveries"))
        .join(message, message.c.id == delivery.c.message_id)
        .where(message.c.state.in_(READ_PATH))
        .group_by(delivery.c.destination)
    )
    return Counter({row.destination: row.deliveries for row in connection.execute(query)})
