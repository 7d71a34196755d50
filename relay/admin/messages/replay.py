"""Send delivered messages again, to a destination that is new or that has lost them.

A message comes back from the history in state ``held``, with one delivery, ``parked``, for the chosen destination. Its
owner finds it by its `txid` and delivers it like any message that was set aside; then it returns to the history. The
message keeps its id, so a receiver that deduplicates ignores it. With ``as_new``, a new message is sent that names the
old one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from outbox.checks.ids import new_id
from outbox.tables import tables
from relay.admin.access.queries import now
from relay.admin.access.transactions import BATCH, in_batches
from relay.admin.audit import Action
from relay.admin.destinations.listing import refuse_unknown
from relay.admin.messages.choice import Choice, Filters, conditions
from relay.admin.messages.setting_aside import set_aside
from relay.databases.dialect import dialect_of
from relay.decide.verdict import FINAL, UNTAKEN, State

FIRST_ID = "00000000-0000-0000-0000-000000000000"
GENERATIONS = 1000  # for each replay: its retries raise the generation, which must not reach that of another replay
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
        as_new: Send them with new ids and the header ``outbox-replay-of``, so that no receiver takes them for
            duplicates.
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
        marked: How many of them the destination's inbox has marked; the listener is not called for these again.
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
    refuse_unknown(connection, what.to, even_removed=True)
    h, i = tables().history.c, tables().inbox.c
    count = sa.func.count(h.id.distinct())
    is_marked = sa.exists().where(i.listener == what.to, i.message_id == sa.cast(h.id, sa.Text))
    marked = sa.func.count(sa.case((is_marked, h.id)).distinct())
    query = (
        sa.select(h.type, count, sa.func.min(h.delivered_at), sa.func.max(h.delivered_at), marked)
        .where(*_conditions(connection, what, h.delivered_at))
        .group_by(h.type)
        .order_by(count.desc(), h.type)
    )
    return [Found(*row) for row in connection.execute(query)]


def replay(
    engine: sa.Engine,
    what: Replay,
    *,
    rate: float | None = None,
    reason: str | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
    wait: Callable[[float], object] = time.sleep,
) -> int:
    """Send messages again; return their count. A message that already waits for the destination is left alone.

    Args:
        engine: The outbox's database.
        what: The messages and their destination.
        rate: The maximum number of messages a second.
        reason: The reason, for the record.
        on_progress: Called after each batch with the count so far.
        wait: Called with a time in seconds, to wait.

    Raises:
        OutboxError: The destination is not registered.
    """
    action = Action("replay", what.as_dict(), reason=reason)
    with engine.connect() as connection:
        refuse_unknown(connection, what.to, even_removed=True)
        query = _pages(connection, replace(what, until=what.until or now(connection)))
    size = BATCH if rate is None else max(1, min(BATCH, int(rate)))
    started = time.monotonic()

    def page(connection: sa.Connection, last: Any) -> Sequence[Any]:
        dialect_of(connection).by_index(connection)
        after = FIRST_ID if last is None else last.id
        return connection.execute(query.where(tables().history.c.id > after).limit(size)).all()

    def slow_down(count: int) -> None:
        on_progress(count)
        if rate is not None:
            wait(max(count / rate - (time.monotonic() - started), 0.0))

    return in_batches(engine, page, partial(_send_again, what, action), action, slow_down)


def _send_again(what: Replay, action: Action, connection: sa.Connection, page: Sequence[Any]) -> int:
    dialect = dialect_of(connection)
    # Verdicts that any session made before the replay must not match the new generation.
    generation = min(action.add(connection, 0) * GENERATIONS, LAST_GENERATION)
    if what.as_new:
        picked = [(str(id_), at, new_id()) for id_, at in page]
        connection.execute(sa.text(dialect.WRITE_ANEW), dialect.picked(picked))
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
    """Insert messages into the outbox, and lock them. One that an earlier replay inserted may be leaving just now."""
    dialect = dialect_of(connection)
    ids = [id_ for id_, _, _ in picked]
    m = tables().message
    # Locked in the order of ids, as owners do; a message that an owner has just moved is not found.
    locked = sa.select(m.c.id).where(m.c.id.in_(ids)).order_by(m.c.id).with_for_update()
    for _ in range(2):
        connection.execute(sa.text(dialect.BRING_BACK), dialect.picked(picked) | {"generation": generation})
        if len(connection.execute(locked).all()) == len(ids):
            break
    return ids


# ----------------------------------------------------------------------------------------------------------- finding


def _pages(connection: sa.Connection, what: Replay) -> sa.Select[Any]:
    """Return (id, instant) of the messages, of which the last entry counts: earlier replays have added entries.

    Index: outbox_history_id, in its order: each page continues where the last one ended, so there is one pass in all.
    """
    h, dialect = tables().history.c, dialect_of(connection)
    where = _conditions(connection, what, dialect.unindexed(h.delivered_at))
    return sa.select(h.id, sa.func.max(dialect.exact(h.delivered_at))).where(*where).group_by(h.id).order_by(h.id)


def _conditions(connection: sa.Connection, what: Replay, at: sa.ColumnElement[Any]) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions of the history's entries that are sent again.

    A message that operators gave up for this destination must not go there, nor one that no destination took. One that
    is named is sent all the same.
    """
    h = tables().history.c
    which = Choice(ids=what.ids, type_=what.type_, since=what.since, until=what.until)
    yield from conditions(connection, which, tables().history, at)
    if not what.ids:
        yield h.outcome.is_(None)
        # An entry of an earlier replay names only its own destination: then the older entries of the message decide.
        older = tables().history.alias()
        was_given_up = sa.exists().where(
            older.c.id == h.id, older.c.deliveries[what.to]["state"].as_string().in_(UNTAKEN)
        )
        state = h.deliveries[what.to]["state"].as_string()
        yield sa.func.coalesce(state, "").not_in(UNTAKEN)
        yield h.deliveries.is_(None) | state.is_not(None) | ~was_given_up
