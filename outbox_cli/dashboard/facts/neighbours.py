"""The unsettled messages of an ordering key around one of them."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.messages.detail import MessageDetail
from relay.admin.messages.listing import delivery_states
from relay.decide.verdict import State
from relay.store import dialect_of

LINKS = 8  # messages of a key that are shown before and after a message
CHAIN_ROWS = 2_000  # rows of the shard that are read to find them
SQLITE_ROWS = 20_000  # rows of all shards: its index does not know them
# Not a parameter: SQLite would not use the index of ready messages.
IS_READY: sa.ColumnElement[str] = sa.literal_column(f"'{State.READY}'")


@dataclass(frozen=True)
class Link:
    """A message of the same ordering key.

    Args:
        state: Its state.
        is_this: Whether it is the message that is shown.
    """

    id: str
    type: str
    state: str
    is_this: bool = False


def chain(connection: sa.Connection, detail: MessageDetail) -> list[Link]:
    """Return a message and its neighbours in its key.

    All of them are in its shard, so a walk along the shard's index finds them; on SQLite, along that of all shards.
    """
    m, d = tables().message, tables().delivery.c
    key, shard = detail.message.ordering_key, detail.shard
    place = connection.scalar(sa.select(m.c.position).where(m.c.id == detail.message.id))
    if place is None:
        return []
    dialect = dialect_of(connection)
    dialect.by_index(connection)
    columns = (m.c.id, m.c.type, m.c.state, m.c.position, m.c.ordering_key)
    aside = sa.select(*columns).where(
        m.c.id.in_(sa.select(d.message_id).where(d.ordering_key == key, d.state != State.DELIVERED).limit(CHAIN_ROWS))
    )
    ready, rows_read = sa.select(*columns).where(m.c.state == IS_READY), SQLITE_ROWS
    if dialect.INDEXES_SHARDS:
        ready, rows_read = ready.where(m.c.shard == shard), CHAIN_ROWS
    before = ready.where(m.c.position < place).order_by(m.c.position.desc()).limit(rows_read).subquery()
    after = ready.where(m.c.position > place).order_by(m.c.position).limit(rows_read).subquery()
    rows: dict[Any, Any] = {row.id: row for row in connection.execute(aside)}
    for part in (before, after):
        rows |= {r.id: r for r in connection.execute(sa.select(part).where(part.c.ordering_key == key))}
    this = detail.message
    rows.setdefault(this.id, SimpleNamespace(id=this.id, type=this.type, state=this.state, position=place))
    return _links(sorted(rows.values(), key=lambda row: row.position), detail, connection)


def _links(rows: list[Any], detail: MessageDetail, connection: sa.Connection) -> list[Link]:
    here = next(index for index, row in enumerate(rows) if str(row.id) == detail.message.id)
    shown = rows[max(here - LINKS, 0) : here + LINKS + 1]
    states = delivery_states(connection, [str(row.id) for row in shown])
    return [
        Link(str(row.id), row.type, worst(states.get(str(row.id), {})) or row.state, str(row.id) == detail.message.id)
        for row in shown
    ]


def worst(states: dict[str, str]) -> str | None:
    """Return the state that needs an operator most, of those that keep a delivery from being done."""
    order = (State.DEAD, State.RETRY, State.BLOCKED, State.PARKED)
    return next((each for each in order if each in states.values()), None)
