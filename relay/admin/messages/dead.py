"""Dead letters: list them, count their causes, retry and discard them.

A dead letter is a delivery in state ``dead``. The operator changes its state; the owner of its shard finds the change
by its `txid` and does the rest.

| from | by      | to        | what the owner does then                                                         |
|------|---------|-----------|----------------------------------------------------------------------------------|
| dead | retry   | parked    | delivers it before its key's successors, with its attempts counted from zero     |
| dead | discard | discarded | moves the message to history when no delivery of it is open; frees its key       |

Both actions raise the generation, so earlier verdicts have no effect any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import matches, now
from relay.admin.access.transactions import BATCH, in_batches
from relay.admin.audit import Action
from relay.admin.messages.choice import Filters
from relay.databases.dialect import dialect_of
from relay.decide.verdict import State

Progress = Callable[[int], object]
Also = Callable[[sa.Connection, str, Sequence[str]], object]

PAGE = 1000  # the number of dead letters in memory at once while they are listed
# A literal, not a parameter: with a parameter, SQLite would look up each row outside its index.
IS_DEAD: sa.ColumnElement[str] = sa.literal_column(f"'{State.DEAD}'")


@dataclass(frozen=True)
class DeadFilter(Filters):
    """A choice of dead letters. All given conditions must hold.

    Args:
        ids: Of these messages.
        destination: For this destination.
        type_: Of this event type; ``*`` stands for any text.
        older_than_s: Dead for longer than this, in seconds.
        newer_than_s: Dead for less than this, in seconds.
        reason: With this text in the reason; case does not matter.
        fingerprint: With this cause; its first characters are enough.
    """

    ids: tuple[str, ...] = ()
    destination: str | None = None
    type_: str | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None
    reason: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Cause:
    """Dead letters of one destination that failed for the same cause.

    Args:
        fingerprint: A hash of the reason without numbers, ids and quoted values.
        reason: The reason of one of them.
        first_at: When the first of them died.
        last_at: When the last of them died.
    """

    fingerprint: str
    destination: str
    count: int
    reason: str
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter."""

    id: str
    type: str
    destination: str
    ordering_key: str | None
    attempts: int
    reason: str
    fingerprint: str
    died_at: datetime
    created_at: datetime


def count_dead(connection: sa.Connection, which: DeadFilter, *, among: int | None = None) -> int:
    """Return the count of these dead letters; with `among`, count only within that number of the latest ones."""
    where = _conditions(connection, which, among=among)
    return connection.scalar(sa.select(sa.func.count()).select_from(_source(which)).where(*where)) or 0


def causes(connection: sa.Connection, which: DeadFilter, *, among: int | None = None) -> list[Cause]:
    """Return their causes, the most common first; with `among`, count only within that number of the latest ones."""
    d, count = tables().delivery.c, sa.func.count()
    where = _conditions(connection, which, among=among)
    grouped = sa.select(d.fingerprint, d.destination, count, sa.func.min(d.reason), sa.func.min(d.changed_at))
    grouped = grouped.add_columns(sa.func.max(d.changed_at)).select_from(_source(which)).where(*where)
    grouped = grouped.group_by(d.fingerprint, d.destination).order_by(count.desc(), d.destination, d.fingerprint)
    return [Cause(row[0] or "", *row[1:]) for row in connection.execute(grouped)]


def dead_letters(
    connection: sa.Connection, which: DeadFilter, *, limit: int, among: int | None = None
) -> Iterator[DeadLetter]:
    """Yield at most ``limit`` dead letters, the latest first. They are read page by page, so there may be very many."""
    d, m = tables().delivery.c, tables().message.c
    latest = (
        sa.select(d.message_id, d.destination, d.ordering_key, d.attempts, d.reason, d.fingerprint, d.changed_at)
        .select_from(_source(which))
        .where(*_conditions(connection, which, among=among))
        .order_by(d.changed_at.desc(), d.message_id, d.destination)
        .limit(limit)
        .subquery()  # messages are joined after the choice: a join before it would read all messages
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
    """Have dead letters delivered after all; return their count.

    Args:
        engine: The outbox's database.
        which: Those that are dead now; those that die later are left alone.
        reason: The reason, for the record.
        on_progress: Called after each batch with the count so far.
    """
    alive = {"state": State.PARKED, "attempts": 0, "due_at": None, "first_failed_at": None}
    return change(engine, which, alive, Action("dead retry", which.as_dict(), reason=reason), on_progress)


def discard(
    engine: sa.Engine, which: DeadFilter, *, reason: str | None = None, on_progress: Progress = lambda count: None
) -> int:
    """Give dead letters up for good; return their count. The history keeps the messages, and records this.

    Args:
        engine: The outbox's database.
        which: Those that are dead now.
        reason: The reason, for the record.
        on_progress: Called after each batch with the count so far.
    """
    action = Action("dead discard", which.as_dict(), reason=reason)
    return change(engine, which, {"state": State.DISCARDED}, action, on_progress)


# --------------------------------------------------------------------------------------------------------- changing


def change(
    engine: sa.Engine,
    which: DeadFilter,
    values: Mapping[str, Any],
    action: Action,
    on_progress: Progress,
    *,
    also: Also = lambda connection, destination, ids: None,
) -> int:
    """Change dead letters batch by batch, each batch in a separate transaction; return their count.

    Each batch continues where the previous one ended, the oldest first. From the beginning it would walk over all
    changed rows, which stay in the index until vacuum.

    Args:
        engine: The outbox's database.
        which: Those that are dead now; those that die later are left alone.
        values: The new values of their deliveries.
        action: The action to record.
        on_progress: Called after each batch with the count so far.
        also: Called first in the same transaction, with the connection, the destination and the messages' ids.
    """
    with engine.connect() as connection:
        started_at = now(connection)
        destinations = _destinations(connection, which)
    for destination in destinations:

        def page(connection: sa.Connection, last: Any, destination: str = destination) -> Sequence[Any]:
            return connection.execute(_next(connection, which, destination, started_at, last)).all()

        def write(connection: sa.Connection, rows: Sequence[Any], destination: str = destination) -> int:
            ids = [row.message_id for row in rows]
            also(connection, destination, ids)
            return _write(connection, destination, ids, values)

        in_batches(engine, page, write, action, on_progress)
    return action.count


def _next(
    connection: sa.Connection,
    which: DeadFilter,
    destination: str,
    started_at: datetime,
    last: Any,
) -> sa.Select[Any]:
    d = tables().delivery.c
    at = dialect_of(connection).exact(d.changed_at)
    query = (
        sa.select(d.message_id, at.label("at"))
        .select_from(_source(which))
        .where(*_conditions(connection, which, started_at), d.destination == destination, d.changed_at <= started_at)
        .order_by(at, d.message_id)
        .limit(BATCH)
        .with_for_update(of=tables().delivery, skip_locked=True)  # another operator holds a locked row
    )
    if last is None:
        return query
    return query.where(at >= last.at, sa.or_(at > last.at, d.message_id > last.message_id))


def _write(connection: sa.Connection, destination: str, ids: list[str], values: Mapping[str, Any]) -> int:
    d, dialect = tables().delivery.c, dialect_of(connection)
    return connection.execute(
        sa.update(tables().delivery)
        .where(d.destination == destination, d.message_id.in_(ids), d.state == State.DEAD)
        .values(**values, generation=d.generation + 1, changed_at=dialect.CLOCK, txid=dialect.next_txid(connection))
    ).rowcount


# ---------------------------------------------------------------------------------------------------------- finding


def _latest(connection: sa.Connection, which: DeadFilter, among: int) -> Iterator[sa.ColumnElement[bool]]:
    """Restrict dead letters to the latest of their destination, or of all: the index knows when they died."""
    dialect_of(connection).by_index(connection)
    d = tables().delivery.c
    at = dialect_of(connection).exact(d.changed_at).label("at")
    latest = [
        sa.select(
            sa.select(at).where(d.state == IS_DEAD, d.destination == name).order_by(at.desc()).limit(among).subquery()
        )
        for name in _destinations(connection, which)
    ]
    if not latest:
        return
    of_all = sa.union_all(*latest).subquery().c
    first = connection.scalar(sa.select(of_all.at).order_by(of_all.at.desc()).limit(1).offset(among - 1))
    if first is not None:
        yield dialect_of(connection).exact(d.changed_at) >= first


def _destinations(connection: sa.Connection, which: DeadFilter) -> list[str]:
    if which.destination is not None:
        return [which.destination]
    d = tables().delivery.c
    return list(
        connection.scalars(sa.select(d.destination).where(d.state == IS_DEAD).distinct().order_by(d.destination))
    )


def _source(which: DeadFilter) -> sa.FromClause:
    t = tables()
    return t.delivery if which.type_ is None else t.delivery.join(t.message, t.message.c.id == t.delivery.c.message_id)


def _conditions(
    connection: sa.Connection, which: DeadFilter, at: datetime | None = None, *, among: int | None = None
) -> Iterator[sa.ColumnElement[bool]]:
    d, m = tables().delivery.c, tables().message.c
    yield d.state == IS_DEAD
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
    if among is not None:
        yield from _latest(connection, which, among)
