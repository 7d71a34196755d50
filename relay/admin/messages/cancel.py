"""Cancel messages: take them back before they are sent.

Cancelling affects deliveries that are still to be made: those of messages that no relay has read or settled yet, those
of messages that are unrouted or not due yet, and deliveries that are parked, blocked or waiting for a retry. A delivery
that its destination has taken stays delivered. A dead letter stays dead: it can be discarded
(`relay.admin.messages.dead`).

| a message is                | what is written                                                                   |
|-----------------------------|-----------------------------------------------------------------------------------|
| ready, scheduled, unrouted  | it becomes held, with a delivery in state ``cancelled`` for each destination       |
| held                        | its parked, blocked and retried deliveries become ``cancelled``                   |

The owner of the shard finds the change by its `txid`, drops the message from its memory, moves it to the history and
releases the successors of its key. An attempt that is under way at that moment is completed. If the destination takes
the message, the delivery becomes delivered and the history says so; if not, the delivery stays cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import has_delivery
from relay.admin.access.transactions import BATCH, in_batches
from relay.admin.audit import Action
from relay.admin.destinations.subscriptions import Registered
from relay.admin.messages.choice import Choice, conditions
from relay.admin.messages.outcomes import NOBODY
from relay.admin.messages.setting_aside import set_aside
from relay.databases.dialect import dialect_of
from relay.decide.verdict import READ_PATH, WAITING, State

UNREAD = (*READ_PATH, State.UNROUTED)


@dataclass(frozen=True)
class Cancellable:
    """Messages of one event type that can be cancelled.

    Args:
        state: ``ready``, ``scheduled``, ``unrouted``, or ``held``: some of its deliveries were set aside.
    """

    type: str
    state: str
    count: int


def cancellable(connection: sa.Connection, which: Choice) -> list[Cancellable]:
    """Return the messages that would be cancelled, counted by event type and state, largest count first."""
    m, count = tables().message.c, sa.func.count()
    where = sa.or_(_unread(connection, which), _held(connection, which))
    query = sa.select(m.type, m.state, count).where(where).group_by(m.type, m.state).order_by(count.desc(), m.type)
    return [Cancellable(*row) for row in connection.execute(query)]


def cancel(
    engine: sa.Engine,
    which: Choice,
    *,
    reason: str | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
) -> int:
    """Cancel messages; return their count. Messages that are emitted while this runs are not cancelled.

    Args:
        engine: The outbox's database.
        which: Messages with deliveries still to be made. If a ``destination`` is given, all other destinations still
            get them.
        reason: The reason, for the record.
        on_progress: Called after each batch with the count so far.
    """
    action = Action("cancel", which.as_dict(), reason=reason)
    m = tables().message.c
    with engine.connect() as connection:
        newest = connection.scalar(sa.select(sa.func.max(m.position))) or 0
        steps = ((_unread(connection, which), _hold), (_held(connection, which), _take_back))
    # A message moves from unread to set aside, and never back, so no message is missed in this order.
    for condition, write in steps:
        query = _in_order(sa.and_(condition, m.position <= newest))
        in_batches(engine, partial(_page, query), partial(write, which), action, on_progress)
    return action.count


def _in_order(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return messages in the order of their ids, in which relays lock the messages that they settle."""
    m = tables().message.c
    return sa.select(m.id, m.type).where(condition).order_by(m.id).limit(BATCH).with_for_update(of=tables().message)


def _page(query: sa.Select[Any], connection: sa.Connection, last: Any) -> Sequence[Any]:
    dialect = dialect_of(connection)
    dialect.share_registry(connection)
    dialect.by_index(connection)
    return connection.execute(query if last is None else query.where(tables().message.c.id > last.id)).all()


def _hold(which: Choice, connection: sa.Connection, rows: Sequence[Any]) -> int:
    """Set messages aside: cancelled for the chosen destinations, parked for all others."""
    m = tables().message.c
    connection.execute(
        sa.update(tables().message).where(m.id.in_([row.id for row in rows])).values(state=State.HELD, due_at=None)
    )
    for name, ids in _by_destination(Registered(connection), rows).items():
        state = State.CANCELLED if which.destination in (None, name) else State.PARKED
        # A ready message has deliveries only if a crash of the server undid the change of its state.
        set_aside(connection, name, ids, state, over=WAITING, changes={"due_at": None})
    return len(rows)


def _by_destination(registered: Registered, rows: Sequence[Any]) -> dict[str, list[str]]:
    """Return destination → messages that it wants; messages that no destination wants are under the name ``nobody``."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for name in registered.wanting(row.type) or [NOBODY]:
            found.setdefault(name, []).append(row.id)
    return found


def _take_back(which: Choice, connection: sa.Connection, rows: Sequence[Any]) -> int:
    """Cancel deliveries that are set aside. Their generation stays: an attempt under way may still deliver them."""
    d = tables().delivery.c
    connection.execute(
        sa.update(tables().delivery)
        .where(d.message_id.in_([row.id for row in rows]), d.state.in_(WAITING))
        .where(d.destination == which.destination if which.destination is not None else sa.true())
        .values(
            state=State.CANCELLED,
            due_at=None,
            changed_at=dialect_of(connection).CLOCK,
            txid=dialect_of(connection).next_txid(connection),
        )
    )
    return len(rows)


# ---------------------------------------------------------------------------------------------------------- finding


def _unread(connection: sa.Connection, which: Choice) -> sa.ColumnElement[bool]:
    """Return the condition of messages that are not set aside; their type determines their destinations."""
    m = tables().message
    where = sa.and_(m.c.state.in_(UNREAD), *conditions(connection, which, m, m.c.created_at))
    if which.destination is None:
        return where
    registered = Registered(connection)
    types = connection.scalars(sa.select(m.c.type).where(where).distinct())
    return sa.and_(where, m.c.type.in_([each for each in types if which.destination in registered.wanting(each)]))


def _held(connection: sa.Connection, which: Choice) -> sa.ColumnElement[bool]:
    """Return the condition of messages that are set aside and have a delivery still to be made."""
    m, waits = tables().message, has_delivery(*WAITING, destination=which.destination)
    return sa.and_(m.c.state == State.HELD, waits, *conditions(connection, which, m, m.c.created_at))
