"""Give held messages a delivery at a destination, in any state: parked to be sent, or cancelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from outbox.tables import insert, tables
from relay.databases.dialect import dialect_of
from relay.decide.verdict import State


def set_aside(
    connection: sa.Connection,
    destination: str,
    ids: Sequence[str],
    state: State,
    *,
    over: Sequence[State],
    generation: int = 0,
    changes: Mapping[str, Any],
) -> int:
    """Write a delivery of each of these messages; return how many were written.

    Args:
        connection: To the outbox's database.
        destination: The destination.
        ids: Messages; only held ones get a delivery.
        state: The new state.
        over: The states of deliveries that are changed; others stay.
        generation: The generation of a delivery that had no row.
        changes: Further new values of a delivery that had a row.
    """
    m, delivery, dialect = tables().message.c, tables().delivery, dialect_of(connection)
    txid = dialect.next_txid(connection)
    mark = sa.literal(txid) if isinstance(txid, int) else txid
    row = (
        m.id,
        sa.literal(destination),
        m.shard,
        m.position,
        m.ordering_key,
        sa.literal(state),
        sa.literal(generation),
    )
    columns = ["message_id", "destination", "shard", "position", "ordering_key", "state", "generation", "txid"]
    held = sa.select(*row, mark).where(m.id.in_(ids), m.state == State.HELD)
    put = insert(connection, delivery).from_select(columns, held, include_defaults=False)
    values = {"state": state, "changed_at": dialect.CLOCK, "txid": txid, **changes}
    put = put.on_conflict_do_update(
        index_elements=["message_id", "destination"], set_=values, where=delivery.c.state.in_(over)
    )
    count: int = connection.execute(put, execution_options={"preserve_rowcount": True}).rowcount
    return count
