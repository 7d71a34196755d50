"""Dead letters: what died, of what, and what becomes of it.

A dead letter is a delivery in state ``dead``. Nobody moves it: an operator changes its state and leaves the rest to the
owner of its shard, who finds the change by its stamp.

| from | by      | to        | what the owner does then                                                         |
|------|---------|-----------|----------------------------------------------------------------------------------|
| dead | retry   | parked    | delivers it, its attempts counted from zero, and ahead of its key's successors   |
| dead | discard | discarded | moves the message to history when nothing else of it is open; frees its key      |

Both raise the generation, so that a verdict from before changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import clock, exact, matches, now
from relay.admin.access.transactions import BATCH, transaction
from relay.admin.audit import Action
from relay.store.changes import nudge, stamp

Progress = Callable[[int], object]
Also = Callable[[sa.Connection, str, Sequence[str]], object]

PAGE = 1000  # dead letters that are in memory at once while they are listed


@dataclass(frozen=True)
class DeadFilter:
    """Which dead letters. Everything that is given has to hold.

    Args:
        ids: Of these messages.
        destination: For this destination.
        type_: Of this event type; ``*`` stands for anything.
        older_than_s: Dead for longer.
        newer_than_s: Dead for less.
        reason: With this text in the reason, in upper or lower case.
        fingerprint: Of this cause; the first characters will do.
    """

    ids: tuple[str, ...] = ()
    destination: str | None = None
    type_: str | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None
    reason: str | None = None
    fingerprint: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """What is given, for the record."""
        given = {name.rstrip("_"): value for name, value in vars(self).items() if value not in (None, ())}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


@dataclass(frozen=True)
class Cause:
    """Dead letters of one destination that failed alike.

    Args:
        fingerprint: What they have in common: the reason without numbers, ids and quoted values.
        reason: Of one of them.
        first_at: When the first of them died.
        last_at: When the last of them did.
    """

    fingerprint: str
    destination: str
    count: int
    reason: str
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class DeadLetter:
    """One of them."""

    id: str
    type: str
    destination: str
    ordering_key: str | None
    attempts: int
    reason: str
    fingerprint: str
    died_at: datetime
    created_at: datetime


def count_dead(connection: sa.Connection, which: DeadFilter) -> int:
    """How many dead letters these are."""
    query = sa.select(sa.func.count()).select_from(_source(which)).where(*_conditions(connection, which))
    return connection.scalar(query) or 0


def causes(connection: sa.Connection, which: DeadFilter) -> list[Cause]:
    """What they died of, the commonest first."""
    d = tables().delivery.c
    count = sa.func.count()
    query = (
        sa.select(d.fingerprint, d.destination, count, sa.func.min(d.reason), sa.func.min(d.changed_at))
        .add_columns(sa.func.max(d.changed_at))
        .select_from(_source(which))
        .where(*_conditions(connection, which))
        .group_by(d.fingerprint, d.destination)
        .order_by(count.desc(), d.destination, d.fingerprint)
    )
    return [Cause(row[0] or "", *row[1:]) for row in connection.execute(query)]


def dead_letters(connection: sa.Connection, which: DeadFilter, *, limit: int) -> Iterator[DeadLetter]:
    """One by one, the latest first, and at most so many; read by the page, so that they may be very many."""
    d, m = tables().delivery.c, tables().message.c
    latest = (
        sa.select(d.message_id, d.destination, d.ordering_key, d.attempts, d.reason, d.fingerprint, d.changed_at)
        .select_from(_source(which))
        .where(*_conditions(connection, which))
        .order_by(d.changed_at.desc(), d.message_id, d.destination)
        .limit(limit)
        .subquery()  # their messages are looked up once it is known which: joined first, all of them would be read
    )
    c = latest.c
    query = (
        sa.select(c.message_id, m.type, c.destination, c.ordering_key, c.attempts, c.reason, c.fingerprint)
        .add_columns(c.changed_at, m.created_at)
        .join_from(latest, tables().message, m.id == c.message_id)
        .order_by(c.changed_at.desc(), c.message_id, c.destination)
    )
    for row in connection.execute(query, execution_options={"yield_per": PAGE}):
        yield DeadLetter(*row)


def retry(
    engine: sa.Engine, which: DeadFilter, *, reason: str | None = None, on_progress: Progress = lambda count: None
) -> int:
    """Have dead letters delivered after all; returns how many there were.

    Args:
        engine: The outbox's database.
        which: Those that are dead now; what dies while this runs is left alone.
        reason: For the record.
        on_progress: Called after each batch with how many there have been until then.
    """
    alive = {"state": "parked", "attempts": 0, "due_at": None, "first_failed_at": None}
    return _change(engine, which, alive, Action("dead retry", which.as_dict(), reason=reason), on_progress)


def discard(
    engine: sa.Engine, which: DeadFilter, *, reason: str | None = None, on_progress: Progress = lambda count: None
) -> int:
    """Give dead letters up for good; returns how many there were. The history keeps the messages, and says so.

    Args:
        engine: The outbox's database.
        which: Those that are dead now.
        reason: For the record.
        on_progress: Called after each batch with how many there have been until then.
    """
    action = Action("dead discard", which.as_dict(), reason=reason)
    return _change(engine, which, {"state": "discarded"}, action, on_progress)


# --------------------------------------------------------------------------------------------------------- changing


def _change(
    engine: sa.Engine, which: DeadFilter, values: Mapping[str, Any], action: Action, on_progress: Progress
) -> int:
    for _ in change_batches(engine, which, values, action):
        on_progress(action.count)
    return action.count


def change_batches(
    engine: sa.Engine, which: DeadFilter, values: Mapping[str, Any], action: Action, *, also: Also | None = None
) -> Iterator[int]:
    """Change dead letters batch by batch, each in a transaction of its own; yields how many there were in each.

    Args:
        engine: The outbox's database.
        which: Those that are dead now; what dies while this runs is left alone.
        values: What their deliveries become.
        action: Put on record.
        also: Done in the same transaction, before: with the connection, the destination and the messages' ids.
    """
    with engine.connect() as connection:
        started_at = now(connection)
        destinations = _destinations(connection, which)
    for destination in destinations:
        yield from _batches(engine, which, destination, started_at, values, action, also)


def _batches(
    engine: sa.Engine,
    which: DeadFilter,
    destination: str,
    started_at: datetime,
    values: Mapping[str, Any],
    action: Action,
    also: Also | None,
) -> Iterator[int]:
    """One destination's, from the first that died to the last, each batch in a transaction of its own.

    Each goes on where the one before ended. From the beginning it would walk over everything changed so far, which
    stays in the index until vacuum.
    """
    after: tuple[Any, str] | None = None
    while True:
        with transaction(engine) as connection:
            rows = connection.execute(_next(connection, which, destination, started_at, after)).all()
            if not rows:
                return
            after = (rows[-1].at, rows[-1].message_id)
            ids = [row.message_id for row in rows]
            if also is not None:
                also(connection, destination, ids)
            changed = _write(connection, destination, ids, values)
            action.add(connection, changed)
        yield changed


def _next(
    connection: sa.Connection,
    which: DeadFilter,
    destination: str,
    started_at: datetime,
    after: tuple[Any, str] | None,
) -> sa.Select[Any]:
    d = tables().delivery.c
    at = exact(connection, d.changed_at)
    query = (
        sa.select(d.message_id, at.label("at"))
        .select_from(_source(which))
        .where(*_conditions(connection, which, started_at), d.destination == destination, d.changed_at <= started_at)
        .order_by(at, d.message_id)
        .limit(BATCH)
        .with_for_update(of=tables().delivery, skip_locked=True)  # whoever holds it is an operator, too
    )
    if after is None:
        return query
    return query.where(at >= after[0], sa.or_(at > after[0], d.message_id > after[1]))


def _write(connection: sa.Connection, destination: str, ids: list[str], values: Mapping[str, Any]) -> int:
    d = tables().delivery.c
    changed = connection.execute(
        sa.update(tables().delivery)
        .where(d.destination == destination, d.message_id.in_(ids), d.state == "dead")
        .values(**values, generation=d.generation + 1, changed_at=clock(connection), txid=stamp(connection))
    )
    nudge(connection)
    return changed.rowcount


# ---------------------------------------------------------------------------------------------------------- finding


def _destinations(connection: sa.Connection, which: DeadFilter) -> list[str]:
    if which.destination is not None:
        return [which.destination]
    d = tables().delivery.c
    return list(
        connection.scalars(sa.select(d.destination).where(d.state == "dead").distinct().order_by(d.destination))
    )


def _source(which: DeadFilter) -> sa.FromClause:
    t = tables()
    return t.delivery if which.type_ is None else t.delivery.join(t.message, t.message.c.id == t.delivery.c.message_id)


def _conditions(
    connection: sa.Connection, which: DeadFilter, at: datetime | None = None
) -> Iterator[sa.ColumnElement[bool]]:
    d, m = tables().delivery.c, tables().message.c
    yield d.state == "dead"
    if which.ids:
        yield d.message_id.in_(which.ids)
    if which.destination is not None:
        yield d.destination == which.destination
    if which.type_ is not None:
        yield matches(m.type, which.type_)
    if which.reason is not None:
        yield sa.func.lower(d.reason).contains(which.reason.lower(), autoescape=True)
    if which.fingerprint is not None:
        yield d.fingerprint.startswith(which.fingerprint, autoescape=True)
    if which.older_than_s is not None:
        yield d.changed_at < (at or now(connection)) - timedelta(seconds=which.older_than_s)
    if which.newer_than_s is not None:
        yield d.changed_at > (at or now(connection)) - timedelta(seconds=which.newer_than_s)
