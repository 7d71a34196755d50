"""Building blocks of all queries: a snapshot, the database's clock, and patterns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import Instant, tables


@contextmanager
def snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection with a read-only snapshot of the database."""
    on_postgres = engine.dialect.name == "postgresql"
    with engine.connect() as connection:
        if on_postgres:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection
        else:
            connection.exec_driver_sql("BEGIN")  # the driver itself begins no transaction before a SELECT
            yield connection
        connection.rollback()


def clock(connection: sa.Connection) -> sa.ColumnElement[datetime]:
    """Return the database's clock as an expression: the only clock that all relays and operators share."""
    if connection.dialect.name == "postgresql":
        return sa.func.clock_timestamp(type_=Instant)
    return sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", type_=Instant)


def now(connection: sa.Connection) -> datetime:
    """Return the time by the database's clock."""
    found = connection.scalar(sa.select(clock(connection)))
    assert isinstance(found, datetime)
    return found


def exact(connection: sa.Connection, instant: sa.ColumnElement[datetime]) -> sa.ColumnElement[Any]:
    """Return an instant in full precision, for a later comparison: SQLite stores text of varying length."""
    return instant if connection.dialect.name == "postgresql" else sa.type_coerce(instant, sa.Text)


# A page is small beside its tables, and a table that has just grown was never analysed: look each row up by index.
BY_INDEX = """
SELECT set_config('enable_' || way, 'off', true)
FROM unnest(ARRAY['seqscan', 'bitmapscan', 'hashjoin', 'mergejoin']) AS way
"""


def by_index(connection: sa.Connection) -> None:
    """Make the rest of this transaction read rows in the order of an index, and stop when it has enough."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(BY_INDEX)


def has_delivery(*states: str, destination: str | None = None) -> sa.Exists:
    """Return a condition: whether a message has a delivery in one of these states, of any destination or of one.

    OFFSET 0 is an optimisation fence: without it the planner may read all such deliveries, and sort all messages,
    before the first result. Concatenating nothing to a state is one, too: it keeps the planner from the index over all
    deliveries of that state.
    """
    d = tables().delivery.c
    query = sa.select(d.state).where(d.message_id == tables().message.c.id, (d.state + "").in_(states))
    if destination is not None:
        query = query.where(d.destination == destination)
    return query.offset(0).exists()


def since(connection: sa.Connection, instant: sa.ColumnElement[Any], at: datetime) -> sa.ColumnElement[bool]:
    """Return whether an instant of a table is this one or later; SQLite compares text of differing length."""
    return exact(connection, instant) >= as_stored(connection, at)


def as_stored(connection: sa.Connection, at: datetime) -> datetime | str:
    """Return an instant as a value to compare with `exact`: SQLite's tables store text."""
    if connection.dialect.name == "postgresql":
        return at
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def age_s(at: datetime, now: datetime) -> float:
    """Return how long ago an instant was, in seconds; never negative, even if clocks differ."""
    return max(0.0, round((now - at).total_seconds(), 3))


def matches(column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
    """Return whether text matches a pattern, in which ``*`` stands for any text."""
    if "*" not in pattern:
        return column == pattern
    return column.like(as_like(pattern), escape="/")


def as_like(pattern: str) -> str:
    """Return a pattern in the form of LIKE, with ESCAPE '/'."""
    return pattern.replace("/", "//").replace("%", "/%").replace("_", "/_").replace("*", "%")
