"""Building blocks of all queries: a snapshot, the database's clock, and patterns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.databases.dialect import dialect_of


@contextmanager
def snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection with a read-only snapshot of the database."""
    with engine.connect() as connection:
        dialect_of(connection).begin_snapshot(connection)
        yield connection
        connection.rollback()


def now(connection: sa.Connection) -> datetime:
    """Return the time by the database's clock."""
    found = connection.scalar(sa.select(dialect_of(connection).CLOCK))
    assert isinstance(found, datetime)
    return found


def has_delivery(*states: str, destination: str | None = None) -> sa.Exists:
    """Return the condition that a message has a delivery in one of these states, at any destination or at one.

    OFFSET 0 is an optimisation fence: without it the planner may read all such deliveries, and sort all messages,
    before the first result. Concatenating an empty string to a state is another fence: it keeps the planner from using
    the index over all deliveries of that state.
    """
    d = tables().delivery.c
    query = sa.select(d.state).where(d.message_id == tables().message.c.id, (d.state + "").in_(states))
    if destination is not None:
        query = query.where(d.destination == destination)
    return query.offset(0).exists()


def since(connection: sa.Connection, instant: sa.ColumnElement[Any], at: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that an instant in a table is this instant or later."""
    dialect = dialect_of(connection)
    return dialect.exact(instant) >= dialect.as_stored(at)


def age_s(at: datetime, now: datetime) -> float:
    """Return how long ago an instant was, in seconds; never negative, even if clocks differ."""
    return max(0.0, round((now - at).total_seconds(), 3))


def matches(column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
    """Return whether text matches a pattern, in which ``*`` stands for any text."""
    if "*" not in pattern:
        return column == pattern
    escaped = pattern.replace("/", "//").replace("%", "/%").replace("_", "/_")
    return column.like(escaped.replace("*", "%"), escape="/")
