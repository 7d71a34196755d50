"""Send delivered messages again: to a destination that is new, or that has lost them.

A message comes back from the history in state ``held``, with one delivery, ``parked``, for the chosen destination. Its
owner finds it by its `txid` and delivers it like any message that was set aside; then it returns to the history. The id
stays, so a receiver that deduplicates ignores it. With ``as_new`` it is a new message that names the old one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from outbox.checks.ids import new_id
from outbox.errors import OutboxError
from outbox.tables import tables
from relay.admin.access.queries import as_like, now
from relay.admin.access.transactions import BATCH, in_batches
from relay.admin.audit import Action
from relay.admin.destinations.listing import registered
from relay.admin.messages.choice import Filters
from relay.admin.messages.setting_aside import set_aside
from relay.decide.verdict import FINAL, State
from relay.store import dialect_of

FIRST_ID = "00000000-0000-0000-0000-000000000000"
GENERATIONS = 1000  # of one replay: its retries raise the generation further, and must not reach that of another replay
LAST_GENERATION = 2**31 - GENERATIONS - 1


@dataclass(frozen=True)
class Replay(Filters):
    """The messages to send again, and their destination.

    Args:
        to: The destination.
        ids: With one of these ids, even if it was discarded or cancelled: a replay undoes that.
        type_: Of this event type; ``*`` stands for any text.
        since: Delivered at this instant or later.
        until: Delivered before this instant; by default, before the replay begins.
        as_new: With new ids and the header ``outbox-replay-of``, so no receiver takes them for duplicates.
    """

    to: str
    type_: str = "*"
    since: datetime | None = None
    until: datetime | None = None
    as_new: bool = False
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The messages of one event type that a replay would send again.

    Args:
        first_at: When the first of them was delivered.
        marked: How many of them the destination's inbox has marked: its listener is not called for them again.
    """

    type: str
    count: int
    first_at: datetime
    last_at: datetime
    marked: int


def look(connection: sa.Connection, what: Replay) -> list[Found]:
    """Return the messages that would be sent again, by event type.

    Raises:
        OutboxError: The destination is not registered.
    """
    _require_destination(connection, what.to)
    statement = sa.text(dialect_of(connection).replay_sql()["count_named" if what.ids else "count"]).columns(
        type=sa.Text, count=sa.Integer, first_at=_instant(), last_at=_instant(), marked=sa.Integer
    )
    rows = connection.execute(statement, _range(connection, what))
    return [Found(*row) for row in rows]


def estimate(connection: sa.Connection, what: Replay) -> int:
    """Return about how many messages would be sent again: the planner's estimate, or on SQLite that of a sample.

    Raises:
        OutboxError: The destination is not registered.
    """
    _require_destination(connection, what.to)
    return dialect_of(connection).estimate_replay(connection, _range(connection, what))


def replay(
    engine: sa.Engine,
    what: Replay,
    *,
    rate: float | None = None,
    reason: str | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
    wait: Callable[[float], object] = time.sleep,
) -> int:
    """Send messages again; return their count. A message that is already waiting for the destination is left alone.

    Args:
        engine: The outbox's database.
        what: The messages and their destination.
        rate: The maximum number of messages a second.
        reason: The reason, for the record.
        on_progress: Called after each batch with the count so far.
        wait: Waits, given a time in seconds.

    Raises:
        OutboxError: The destination is not registered.
    """
    action = Action("replay", what.as_dict(), reason=reason)
    with engine.connect() as connection:
        _require_destination(connection, what.to)
        span = _range(connection, what)
    size = BATCH if rate is None else max(1, min(BATCH, int(rate)))
    started = time.monotonic()

    def page(connection: sa.Connection, last: Any) -> Sequence[Any]:
        dialect_of(connection).by_index(connection)
        after = FIRST_ID if last is None else str(last[0])
        query = sa.text(dialect_of(connection).replay_sql()["page_of_named" if what.ids else "page"])
        return connection.execute(query, span | {"after": after, "limit": size}).all()

    def slow_down(count: int) -> None:
        on_progress(count)
        if rate is not None:
            wait(max(count / rate - (time.monotonic() - started), 0.0))

    return in_batches(engine, page, partial(_send_again, what, action), action, slow_down)


def _send_again(what: Replay, action: Action, connection: sa.Connection, page: Sequence[Any]) -> int:
    dialect = dialect_of(connection)
    # Verdicts from before the replay, of any session, must not match the new generation.
    generation = min(action.add(connection, 0) * GENERATIONS, LAST_GENERATION)
    if what.as_new:
        picked = [(str(id_), at, new_id()) for id_, at in page]
        connection.execute(sa.text(dialect.replay_sql()["write_anew"]), dialect.picked(picked))
        ids = [new for _, _, new in picked]
        generation = 0
    else:
        picked = [(str(id_), at, str(id_)) for id_, at in page]
        ids = _bring_back(connection, picked, generation)
    return deliver(connection, ids, what.to, generation=generation)


def deliver(connection: sa.Connection, ids: Sequence[str], to: str, *, generation: int) -> int:
    """Park a delivery of each of these messages, which are in the outbox; return how many that changed."""
    fresh = {"generation": generation, "attempts": 0, "first_failed_at": None}
    return set_aside(connection, to, ids, State.PARKED, over=FINAL, generation=generation, changes=fresh)


def _bring_back(connection: sa.Connection, picked: list[tuple[str, Any, str]], generation: int) -> list[str]:
    """Insert messages into the outbox, locked. One that an earlier replay brought back may be leaving it just now."""
    dialect = dialect_of(connection)
    ids = [id_ for id_, _, _ in picked]
    m = tables().message
    # In the order of ids, in which owners lock messages; a message that an owner has just moved is not found.
    locked = sa.select(m.c.id).where(m.c.id.in_(ids)).order_by(m.c.id).with_for_update()
    for _ in range(2):
        connection.execute(
            sa.text(dialect.replay_sql()["bring_back"]), dialect.picked(picked) | {"generation": generation}
        )
        if len(connection.execute(locked).all()) == len(ids):
            break
    return ids


def _require_destination(connection: sa.Connection, name: str) -> None:
    d = tables().destination.c
    if connection.scalar(sa.select(d.name).where(d.name == name, d.removed_at.is_(None))) is None:
        raise OutboxError(f"there is no destination {name} to replay to: registered are {registered(connection)}")


# -------------------------------------------------------------------------------------------------------- parameters


def _instant() -> Any:
    return tables().history.c.delivered_at.type


def _range(connection: sa.Connection, what: Replay) -> dict[str, Any]:
    since = what.since or datetime(1970, 1, 1, tzinfo=UTC)
    until = what.until or now(connection)
    dialect, type_ = dialect_of(connection), as_like(what.type_)
    span = {"since": dialect.as_stored(since), "until": dialect.as_stored(until), "type": type_, "to": what.to}
    return span | ({"named": dialect.ids(what.ids)} if what.ids else {})
