"""The columns of a message that a producer fills, and the statement that writes them.

The database computes the position, shard, transaction id, size and instant of creation of a message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.functions import FunctionElement

from outbox.draft import Prepared
from outbox.message import NO_HEADERS
from outbox.tables import Id, Instant

SCHEDULED = "scheduled"

# Makes the SQL that returns a given id, and fails if a message with this id has already been settled in this schema.
# The primary key only covers messages that still wait. Without this check, a second message with the same id would be
# refused or delivered depending on how fast the first one was delivered.
NewId = Callable[[str | None, sa.ColumnElement[Any]], sa.ColumnElement[Any]]


class JsonText(sa.TypeDecorator[str]):
    """JSON that is text already: it reaches the database as it was checked, without the engine's serialiser."""

    impl = sa.JSON
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> None:
        return None


class DueIn(FunctionElement[Any]):
    """The instant a given number of seconds from now, by the database's clock. Each dialect has its own SQL for it."""

    type = Instant()
    inherit_cache = True


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


def columns_of(message: Prepared) -> dict[str, Any]:
    """Return the columns that a message's INSERT fills, or the values from which the database computes them."""
    id = "given_id" if message.has_given_id else "id"
    columns: dict[str, Any] = {id: message.id, "type": message.type, "source": message.source, "data": message.data}
    # An absent attribute keeps the column's default: with many writers, every parameter costs time.
    if message.subject is not None:
        columns["subject"] = message.subject
    if message.ordering_key is not None:
        columns["ordering_key"] = message.ordering_key
    if message.headers != NO_HEADERS:
        columns["headers"] = message.headers
    if message.due_at is not None:
        columns.update(due_at=message.due_at, state=SCHEDULED)
    elif message.delay_s is not None:
        columns.update(delay_s=message.delay_s, state=SCHEDULED)
    if message.expires_at is not None:
        columns["expires_at"] = message.expires_at
    elif message.expires_s is not None:
        columns["expires_s"] = message.expires_s
    return columns


@cache
def insert_of(table: sa.Table, names: tuple[str, ...], new_id: NewId) -> sa.Insert:
    """Return the INSERT of one message with what `columns_of` names."""
    computed: dict[str, Any] = {}
    if "given_id" in names:
        computed["id"] = new_id(table.schema, sa.bindparam("given_id", type_=Id))
    for instant, seconds in (("due_at", "delay_s"), ("expires_at", "expires_s")):
        if seconds in names:
            computed[instant] = DueIn(sa.bindparam(seconds, type_=sa.Float))
    return table.insert().values(computed) if computed else table.insert()
