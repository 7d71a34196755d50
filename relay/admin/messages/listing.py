"""List messages: unsettled messages, and those in the history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import has_delivery
from relay.admin.destinations.subscriptions import Registered
from relay.admin.messages.choice import Choice, conditions
from relay.admin.messages.outcomes import OUTCOMES, outcome
from relay.databases.dialect import dialect_of
from relay.decide.verdict import READ_PATH, UNTAKEN, WAITING, State

MOST = 1000
PAGE = 1000  # messages read at once if they are chosen by destination
SET_ASIDE = (*WAITING, State.DEAD)
# Without the data: it may be large, or text that Python cannot parse.
SHOWN = (
    "id", "type", "state", "created_at", "subject", "ordering_key", "due_at", "delivered_at", "outcome", "registered",
    "deliveries",
)  # fmt: skip


@dataclass(frozen=True)
class MessageRow:
    """A message in a list.

    Args:
        state: ``ready``, ``scheduled``, ``held`` or ``unrouted``; for a settled message ``delivered``, ``discarded``,
            ``cancelled`` or ``expired``.
        settled_at: When it moved to the history.
        deliveries: Destination → state, for deliveries with a row or a record in the history.
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
    which: Choice = Choice(),  # noqa: B008 (it is immutable)
    *,
    state: str | None = None,
    limit: int = 20,
    among: int | None = None,
) -> list[MessageRow]:
    """Return messages, newest first: ordered by their ids (UUIDv7), which grow with time and are indexed in both
    tables.

    No index serves the filters: every message that is newer than the last result is read.

    Args:
        connection: To the outbox's database.
        which: Which messages to return. With a destination: those that it has not got yet or, if a state is given,
            those that are in that state there. For settled messages, `since` and `until` refer to when they were
            settled.
        state: A state of `MessageRow`, or that of a delivery: ``parked``, ``blocked``, ``retry``, ``dead``. ``None``:
            every message that is not settled yet.
        limit: The maximum number of messages to return.
        among: Look only at this number of the newest messages, and at those of the key that are set aside, which an
            index has. ``None``: look at as many as necessary.
    """
    dialect_of(connection).by_index(connection)
    asked = _Asked(connection, state, which, limit, among)
    found = asked.waiting()
    if state in OUTCOMES:
        found = sorted([*found, *asked.settled()], key=lambda row: row.id, reverse=True)
    return found[: asked.limit]


@dataclass(frozen=True)
class _Asked:
    """One query, in two halves: unsettled messages, and the history."""

    connection: sa.Connection
    state: str | None
    which: Choice
    limit: int
    among: int | None = None

    def waiting(self) -> list[MessageRow]:
        """Return messages outside the history; these include settled messages that their owner has not moved yet."""
        m, d = tables().message, tables().delivery.c
        where = [*conditions(self.connection, self.which, m, m.c.created_at), *self._in_state()]
        found = self._rows(m, [*where, *self._latest(m)])
        if self.among is None or self.which.key is None:
            return found
        of_key = sa.select(d.message_id).where(d.ordering_key == self.which.key, d.state != State.DELIVERED)
        ids = self.connection.scalars(of_key.distinct().limit(MOST)).all()
        rows = {row.id: row for row in (*found, *self._rows(m, [*where, m.c.id.in_(ids)]))}
        return sorted(rows.values(), key=lambda row: row.id, reverse=True)

    def settled(self) -> list[MessageRow]:
        h = tables().history
        where = [*conditions(self.connection, self.which, h, h.c.delivered_at), *self._with_outcome()]
        return self._rows(h, [*where, *self._latest(h)])

    def _latest(self, table: sa.Table) -> Iterator[sa.ColumnElement[bool]]:
        """Yield the condition that a message is among the newest."""
        if self.among is not None:
            ids = sa.select(table.c.id).order_by(table.c.id.desc())
            first = self.connection.scalar(ids.limit(1).offset(self.among - 1))
            if first is not None:
                yield table.c.id >= first

    def _rows(self, table: sa.Table, where: Sequence[sa.ColumnElement[bool]]) -> list[MessageRow]:
        """Read until there are enough: a WHERE clause cannot tell whether a message is for a destination."""
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
            yield m.state == State.HELD
            yield has_delivery(self.state)
        elif self.state in OUTCOMES:
            yield m.id.in_(sa.select(tables().delivery.c.message_id).where(tables().delivery.c.state.in_(UNTAKEN)))
            yield ~has_delivery(*SET_ASIDE)
            yield from (~has_delivery(each) for each in OUTCOMES[: OUTCOMES.index(self.state)])
            yield has_delivery(self.state)
        elif self.state is not None:
            yield m.state == self.state
            if self.state == State.HELD:
                yield has_delivery(*SET_ASIDE)

    def _with_outcome(self) -> Iterator[sa.ColumnElement[bool]]:
        h = tables().history.c
        if self.state == State.DELIVERED:
            yield h.outcome.is_(None)
        elif self.which.destination is None:
            yield h.outcome == self.state
        else:  # another destination may have taken it
            yield h.deliveries.is_not(sa.null())

    def _is_for(self, made: MessageRow, row: Any, registered: Registered) -> bool:
        """Return whether the destination has not got it yet, or the delivery there is in the requested state."""
        name = self.which.destination
        known = made.deliveries.get(str(name))
        if self.state in (*SET_ASIDE, *OUTCOMES):
            if known is None and made.settled_at is not None:
                return self.state == State.DELIVERED and name in registered.wanted(made.type, row.registered)
            return known == self.state
        if known is None:
            return made.state in READ_PATH and name in registered.wanting(made.type)
        return known in SET_ASIDE


def delivery_states(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return message → destination → state, for the deliveries that are set aside."""
    delivery = tables().delivery
    query = sa.select(delivery.c.message_id, delivery.c.destination, delivery.c.state).where(
        delivery.c.message_id.in_(ids)
    )
    found: dict[str, dict[str, str]] = {}
    for message_id, destination, state in connection.execute(query) if ids else ():
        found.setdefault(message_id, {})[destination] = state
    return found


def message_row(row: sa.Row[Any], deliveries: dict[str, str] | None = None) -> MessageRow:
    """Return a row of either table as a `MessageRow`.

    Args:
        row: A row of ``outbox_message`` or ``outbox_history``.
        deliveries: The deliveries that are set aside, for a message outside the history.
    """
    settled_at = getattr(row, "delivered_at", None)
    states = deliveries or {}
    if settled_at is not None:
        states = {name: each["state"] for name, each in (row.deliveries or {}).items()}
    return MessageRow(
        id=str(row.id),
        type=row.type,
        state=(row.outcome or State.DELIVERED) if settled_at else outcome(states.values()) or row.state,
        created_at=row.created_at,
        subject=row.subject,
        ordering_key=row.ordering_key,
        due_at=getattr(row, "due_at", None),
        settled_at=settled_at,
        deliveries=states,
    )
