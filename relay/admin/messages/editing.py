"""Send dead letters whose data is wrong as new messages, with other data.

The old message is discarded for its destination. The new message goes only to that destination, and names the old
message in the header ``outbox-replay-of``. Both happen in one transaction. The new message takes a new place in its
key, behind all waiting messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from outbox.checks.ids import new_id
from outbox.checks.payload import to_payload
from outbox.errors import EmitError, OutboxError
from outbox.tables import tables
from relay.admin.audit import Action
from relay.admin.messages.dead import DeadFilter, Progress, change
from relay.admin.messages.replay import deliver
from relay.databases.dialect import dialect_of
from relay.databases.store.replay_sql import REPLAY_OF
from relay.decide.verdict import State

Edit = Callable[[Any], Any]


def retry_edited(
    engine: sa.Engine,
    which: DeadFilter,
    edit: Edit,
    *,
    reason: str | None = None,
    on_progress: Progress = lambda count: None,
) -> int:
    """Send dead letters again with other data; return their count.

    Args:
        engine: The outbox's database.
        which: Those that are dead now.
        edit: Returns the new data, given the old data.
        reason: The reason, for the record.
        on_progress: Called after each batch with the count so far.

    Raises:
        OutboxError: The new data cannot be stored; the changes of earlier batches stay.
    """
    action = Action("dead edit", which.as_dict(), reason=reason)

    def again(connection: sa.Connection, destination: str, ids: Sequence[str]) -> None:
        _send_edited(connection, destination, ids, edit)

    return change(engine, which, {"state": State.DISCARDED}, action, on_progress, also=again)


def merged(data: Any, patch: Any) -> Any:
    """Return data with a JSON merge patch applied (RFC 7396).

    Example:
        >>> merged({"a": 1, "b": 2}, {"b": None, "c": 3})
        {'a': 1, 'c': 3}
    """
    if not isinstance(patch, dict):
        return patch
    found = dict(data) if isinstance(data, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def _send_edited(connection: sa.Connection, destination: str, ids: Sequence[str], edit: Edit) -> None:
    m = tables().message
    rows = connection.execute(sa.select(m).where(m.c.id.in_(ids)).order_by(m.c.position)).all()
    fresh = list(_anew(rows, edit))
    if not fresh:
        return
    connection.execute(sa.insert(m), fresh)
    deliver(connection, [row["id"] for row in fresh], destination, generation=0)
    dialect_of(connection).nudge(connection)


def _anew(rows: Sequence[Any], edit: Edit) -> Iterator[dict[str, Any]]:
    for row in rows:
        try:
            data = edit(row.data)
            to_payload(data)
        except (ValueError, EmitError) as error:
            raise OutboxError(f"the new data of {row.id} cannot be stored: {error}") from None
        yield {
            "id": new_id(),
            "type": row.type,
            "source": row.source,
            "subject": row.subject,
            "ordering_key": row.ordering_key,
            "data": data,
            "headers": {**row.headers, REPLAY_OF: str(row.id)},
            "state": State.HELD,
        }
