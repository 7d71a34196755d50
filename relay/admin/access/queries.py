"""What every question shares: one state of the database, its clock, and what patterns mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import Instant, tables


@contextmanager
def snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection in which nothing changes while it is read, and through which nothing can be changed."""
    on_postgres = engine.dialect.name == "postgresql"
    with engine.connect() as connection:
        if on_postgres:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection
        else:
            connection.exec_driver_sql("BEGIN")  # the driver itself begins none before a SELECT
            yield connection
        connection.rollback()


def clock(connection: sa.Connection) -> sa.ColumnElement[datetime]:
    """The database's clock, the only one that every relay and operator shares, as an expression."""
    if connection.dialect.name == "postgresql":
        return sa.func.clock_timestamp(type_=Instant)
    return sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", type_=Instant)


def now(connection: sa.Connection) -> datetime:
    """The time by the database's clock."""
    found = connection.scalar(sa.select(clock(connection)))
    assert isinstance(found, datetime)
    return found


def exact(connection: sa.Connection, instant: sa.ColumnElement[datetime]) -> sa.ColumnElement[Any]:
    """An instant to compare with itself later, to the last digit: SQLite stores text of differing length."""
    return instant if connection.dialect.name == "postgresql" else sa.type_coerce(instant, sa.Text)


# A page is small beside its tables, and what has just filled up was never analysed: look each row up.
BY_INDEX = """
SELECT set_config('enable_' || way, 'off', true)
FROM unnest(ARRAY['seqscan', 'bitmapscan', 'hashjoin', 'mergejoin']) AS way
"""


def by_index(connection: sa.Connection) -> None:
    """Have the rest of this transaction read row by row, in the order of an index, and stop when it has enough."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(BY_INDEX)


def has_delivery(*states: str, destination: str | None = None) -> sa.Exists:
    """Whether a message has a delivery in one of these states, of any destination or of one.

    OFFSET 0 is a fence: without it the planner may read all such deliveries, and sort all messages, before the first.
    A state with nothing added is one, too: it keeps the planner from an index of all that are in that state.
    """
    d = tables().delivery.c
    query = sa.select(d.state).where(d.message_id == tables().message.c.id, (d.state + "").in_(states))
    if destination is not None:
        query = query.where(d.destination == destination)
    return query.offset(0).exists()


def since(connection: sa.Connection, instant: sa.ColumnElement[Any], at: datetime) -> sa.ColumnElement[bool]:
    """Whether an instant of a table is this one or later: SQLite compares text, which is as long as it was written."""
    if connection.dialect.name == "postgresql":
        return instant >= at
    return sa.type_coerce(instant, sa.Text) >= sqlite_text(at)


def sqlite_text(at: datetime) -> str:
    """An instant as SQLite's tables have it."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def age_s(at: datetime, now: datetime) -> float:
    """How long ago, in seconds; never negative, whatever the clocks."""
    return max(0.0, round((now - at).total_seconds(), 3))


def matches(column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
    """Whether text is as the pattern says, in which ``*`` stands for anything."""
    if "*" not in pattern:
        return column == pattern
    return column.like(as_like(pattern), escape="/")


def as_like(pattern: str) -> str:
    """The pattern as LIKE takes it, with ESCAPE '/'."""
    return pattern.replace("/", "//").replace("%", "/%").replace("_", "/_").replace("*", "%")
