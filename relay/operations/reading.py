"""What every question shares: one state of the database, its clock, and what patterns mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import Instant


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
