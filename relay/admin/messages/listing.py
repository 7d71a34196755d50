"""Messages in a list: those that are on their way, and those in the history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import by_index, has_delivery
from relay.admin.destinations.subscriptions import Registered
from relay.admin.messages.choice import Choice, conditions
from relay.admin.messages.outcomes import DELIVERED, OPEN, OUTCOMES, UNTAKEN, outcome

MOST = 1000
PAGE = 1000  # messages looked at in one go when their destinations are what is asked for
SET_ASIDE = (*OPEN, "dead")
# Not the data: it may be large, or such that Python cannot parse it.
SHOWN = (
    "id", "type", "state", "created_at", "subject", "ordering_key", "due_at", "delivered_at", "outcome", "registered",
    "deliveries",
)  # fmt: skip


@dataclass(frozen=True)
class MessageRow:
    """A message in a list.

    Args:
        state: ``ready``, ``scheduled``, ``held`` or ``unrouted``; ``delivered``, ``discarded``, ``cancelled`` or
            ``expired`` when nothing is left to do.
        settled_at: When it became history.
        deliveries: Destination → state, for those that are not simply still to come, or were not simply taken.
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


def list_messages(
    connection: sa.Connection,
    *,
    state: str | None = None,
    type_: str | None = None,
    key: str | None = None,
    subject: str | None = None,
    destination: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 20,
) -> list[MessageRow]:
    """Messages, newest first: by their ids (UUIDv7), which grow with time and are what both tables have an index on.

    No index serves the other parameters: what is newer than the last message that is found is looked at.

    Args:
        connection: To the outbox's database.
        state: A state of `MessageRow`, or that of a delivery: ``parked``, ``blocked``, ``retry``, ``dead``. ``None``:
            everything that is not settled yet.
        type_: Only this event type; a ``*`` in it stands for anything.
        key: Only this ordering key.
        subject: Only this subject; a ``*`` in it stands for anything.
        destination: Only what this destination is still to get, or, with a state, what is in that state there.
        since: Created at this instant or later; of settled messages: settled then.
        until: Created before this instant; of settled messages: settled before.
        limit: How many at most, up to 1,000.
    """
    by_index(connection)
    asked = _Asked(connection, state, Choice((), key, type_, subject, destination, since, until), min(limit, MOST))
    found = asked.waiting()
    if state in OUTCOMES:
        found = sorted([*found, *asked.settled()], key=lambda row: row.id, reverse=True)
    return found[: asked.limit]


@dataclass(frozen=True)
class _Asked:
    """One question, and its two halves: the messages that are on their way, and the history."""

    connection: sa.Connection
    state: str | None
    which: Choice
    limit: int

    def waiting(self) -> list[MessageRow]:
        """What is not in the history; of what is settled, the little that its owner has not moved there yet."""
        m = tables().message
        return self._rows(m, [*conditions(self.connection, self.which, m, m.c.created_at), *self._in_state()])

    def settled(self) -> list[MessageRow]:
        h = tables().history
        return self._rows(h, [*conditions(self.connection, self.which, h, h.c.delivered_at), *self._with_outcome()])

    def _rows(self, table: sa.Table, where: Sequence[sa.ColumnElement[bool]]) -> list[MessageRow]:
        """Read until there are enough: whether a message is for a destination, no WHERE can tell."""
        query = sa.select(*(c for c in table.c if c.name in SHOWN)).where(*where).order_by(table.c.id.desc())
        if self.which.destination is None:
            return self._made(self.connection.execute(query.limit(self.limit)).all())
        found: list[MessageRow] = []
        registered = Registered(self.connection)
        with self.connection.execute(query, execution_options={"yield_per": PAGE}) as result:
            for page in result.partitions():
                made = zip(self._made(page), page, strict=True)
                found += [each for each, row in made if self._is_for(each, row, registered)]
                if len(found) >= self.limit:
                    break
        return found[: self.limit]

    def _made(self, rows: Sequence[sa.Row[Any]]) -> list[MessageRow]:
        waiting = [row.id for row in rows if not hasattr(row, "delivered_at")]
        states = delivery_states(self.connection, waiting)
        return [message_row(row, states.get(row.id)) for row in rows]

    def _in_state(self) -> Iterator[sa.ColumnElement[bool]]:
        m = tables().message.c
        if self.state in SET_ASIDE or (self.state in OUTCOMES and self.which.destination is not None):
            yield m.state == "held"
            yield has_delivery(self.state)
        elif self.state in OUTCOMES:
            yield m.id.in_(sa.select(tables().delivery.c.message_id).where(tables().delivery.c.state.in_(UNTAKEN)))
            yield ~has_delivery(*SET_ASIDE)
            yield from (~has_delivery(each) for each in OUTCOMES[: OUTCOMES.index(self.state)])
            yield has_delivery(self.state)
        elif self.state is not None:
            yield m.state == self.state
            if self.state == "held":
                yield has_delivery(*SET_ASIDE)

    def _with_outcome(self) -> Iterator[sa.ColumnElement[bool]]:
        h = tables().history.c
        if self.state == DELIVERED:
            yield h.outcome.is_(None)
        elif self.which.destination is None:
            yield h.outcome == self.state
        else:  # another destination may have taken it
            yield h.deliveries.is_not(sa.null())

    def _is_for(self, made: MessageRow, row: Any, registered: Registered) -> bool:
        """Whether the destination is still to get it, or is in the state that is asked for."""
        name = self.which.destination
        known = made.deliveries.get(str(name))
        if self.state in (*SET_ASIDE, *OUTCOMES):
            if known is None and made.settled_at is not None:
                return self.state == DELIVERED and name in registered.wanted(made.type, row.registered)
            return known == self.state
        if known is None:
            return made.state in ("ready", "scheduled") and name in registered.wanting(made.type)
        return known in SET_ASIDE


def delivery_states(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return message → destination → state, of the deliveries that are set aside."""
    delivery = tables().delivery
    query = sa.select(delivery.c.message_id, delivery.c.destination, delivery.c.state).where(
        delivery.c.message_id.in_(ids)
    )
    found: dict[str, dict[str, str]] = {}
    for message_id, destination, state in connection.execute(query) if ids else ():
        found.setdefault(message_id, {})[destination] = state
    return found


def message_row(row: sa.Row[Any], deliveries: dict[str, str] | None = None) -> MessageRow:
    """Make a line of a row of either table.

    Args:
        row: Of ``outbox_message`` or ``outbox_history``.
        deliveries: What is set aside of a message that is not in the history.
    """
    settled_at = getattr(row, "delivered_at", None)
    states = deliveries or {}
    if settled_at is not None:
        states = {name: each["state"] for name, each in (row.deliveries or {}).items()}
    return MessageRow(
        id=str(row.id),
        type=row.type,
        state=(row.outcome or DELIVERED) if settled_at else outcome(states.values()) or row.state,
        created_at=row.created_at,
        subject=row.subject,
        ordering_key=row.ordering_key,
        due_at=getattr(row, "due_at", None),
        settled_at=settled_at,
        deliveries=states,
    )
