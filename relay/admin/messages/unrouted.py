"""Messages that no subscription wants: list them, and discard them.

Discarding one writes a delivery in state ``discarded`` for the destination name ``nobody``. The owner of its shard
finds that like any other discard, and moves the message to the history.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import matches
from relay.admin.access.transactions import BATCH, transaction
from relay.admin.audit import Action
from relay.admin.messages.next_steps import NOBODY
from relay.decide.verdict import State
from relay.store.changes import next_txid, nudge


def unrouted_types(connection: sa.Connection, type_: str | None = None) -> dict[str, int]:
    """Return event type → the count of messages that no subscription wants, the largest count first."""
    m, count = tables().message.c, sa.func.count()
    query = sa.select(m.type, count).where(*_conditions(type_)).group_by(m.type).order_by(count.desc(), m.type)
    return {row[0]: row[1] for row in connection.execute(query)}


def discard_unrouted(
    engine: sa.Engine,
    type_: str | None = None,
    *,
    reason: str | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
) -> int:
    """Discard messages that no subscription wants; return their count.

    Args:
        engine: The outbox's database.
        type_: Only this event type; ``*`` stands for any text.
        reason: The reason, for the record.
        on_progress: Called after each batch with the count so far.
    """
    action = Action("messages discard-unrouted", {"type": type_ or "*"}, reason=reason)
    after = 0
    while True:
        with transaction(engine) as connection:
            after, count = _discard_batch(connection, type_, after)
            if not count:
                return action.count
            action.add(connection, count)
        on_progress(action.count)


def _discard_batch(connection: sa.Connection, type_: str | None, after: int) -> tuple[int, int]:
    t = tables()
    m = t.message.c
    rows = connection.execute(
        sa.select(m.id, m.position)
        .where(*_conditions(type_), m.position > after)
        .order_by(m.position)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    if not rows:
        return after, 0
    ids = [row.id for row in rows]
    mark = sa.literal(found) if isinstance(found := next_txid(connection), int) else found
    connection.execute(sa.update(t.message).where(m.id.in_(ids)).values(state=State.HELD, generation=m.generation + 1))
    for_nobody = (m.id, sa.literal(NOBODY), m.shard, m.position, m.ordering_key, sa.literal(State.DISCARDED), mark)
    connection.execute(
        sa.insert(t.delivery).from_select(
            ["message_id", "destination", "shard", "position", "ordering_key", "state", "txid"],
            sa.select(*for_nobody).where(m.id.in_(ids)),
            include_defaults=False,
        )
    )
    nudge(connection)
    return rows[-1].position, len(rows)


def _conditions(type_: str | None) -> list[sa.ColumnElement[bool]]:
    m = tables().message.c
    return [m.state == State.UNROUTED] + ([matches(m.type, type_)] if type_ is not None else [])
