"""The columns of a message that a producer fills, and the SQL of their computed values.

The database computes the position, shard, transaction id, size and instant of creation of a message.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from outbox.tables import Id, Instant

SCHEDULED = "scheduled"


class JsonText(sa.TypeDecorator[str]):
    """JSON that is text already: it reaches the database as it was checked, past the engine's serialiser."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        return dialect.type_descriptor(postgresql.JSON() if dialect.name == "postgresql" else sa.JSON())

    def bind_processor(self, dialect: sa.Dialect) -> None:
        return None


class DueIn(FunctionElement[Any]):
    """The instant a given number of seconds from now, by the database's clock."""

    type = Instant()
    inherit_cache = True


@compiles(DueIn, "postgresql")
def _due_in_postgresql(element: DueIn, compiler: Any, **options: Any) -> str:
    return f"clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)})"


@compiles(DueIn, "sqlite")
def _due_in_sqlite(element: DueIn, compiler: Any, **options: Any) -> str:
    seconds = f"printf('%+.3f seconds', {compiler.process(element.clauses, **options)})"
    return f"strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds})"


@cache
def message_table(schema: str | None) -> sa.Table:
    """Return the columns of ``outbox_message`` that a producer fills."""
    return sa.Table(
        "outbox_message",
        sa.MetaData(schema=schema),
        sa.Column("id", Id, primary_key=True),
        sa.Column("type", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("ordering_key", sa.Text),
        sa.Column("data", JsonText),
        sa.Column("headers", JsonText, server_default=sa.FetchedValue()),
        sa.Column("due_at", Instant),
        sa.Column("expires_at", Instant),
        sa.Column("state", sa.Text, server_default=sa.FetchedValue()),
    )


def new_id(schema: str | None, given: Any) -> Any:
    """Return the SQL that returns a given id, and fails if a message with this id has been settled already.

    The primary key only knows messages that still wait. Without this check, a second message with the same id would be
    refused or delivered depending on how fast the first one was.
    """
    function = sa.func.outbox_new_id if schema is None else getattr(sa.func, schema).outbox_new_id
    return function(given, type_=Id)
