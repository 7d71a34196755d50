"""Write messages, one statement for each or for many.

Nothing is read back, so a worker needs no right but INSERT.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from outbox.draft import Prepared
from outbox.errors import DuplicateId
from outbox.message import NO_HEADERS
from outbox.tables import Id
from outbox.writing.batches import insert_many
from outbox.writing.columns import SCHEDULED, DueIn, message_table, new_id
from outbox.writing.observing import observers
from outbox.writing.refusals import explained
from outbox.writing.transaction import join_transaction, takes_text, wait_for_turns


def write(connection: sa.Connection, schema: str | None, messages: Sequence[Prepared]) -> None:
    """Write messages at once, in their order, as part of the connection's transaction.

    Raises:
        DuplicateId: Another message has a given id, and waits, is dead, or is in the history.
        SchemaError: The outbox's tables do not exist.
    """
    join_transaction(connection)
    with explained:
        _take_turns(connection, schema, messages)
        _insert(connection, message_table(schema), messages)
    for observer in observers:
        observer.written(messages, connection)


def _take_turns(connection: sa.Connection, schema: str | None, messages: Sequence[Prepared]) -> None:
    keys = {each.ordering_key for each in messages if each.strict_order and each.ordering_key is not None}
    if keys:
        wait_for_turns(connection, schema, sorted(keys))


def _insert(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    if connection.dialect.name != "postgresql":
        _insert_alike(connection, table, messages)
    elif len(messages) == 1:
        _insert_one(connection, table, _columns(messages[0]))
    else:
        insert_many(connection, table, messages)


def _insert_one(connection: sa.Connection, table: sa.Table, columns: dict[str, Any]) -> None:
    if "given_id" not in columns and takes_text(connection):
        connection.exec_driver_sql(_text(connection.dialect, table, tuple(columns)), columns)
    else:
        connection.execute(_row_statement(table, *_computed(columns)), columns)


@lru_cache(1_024)
def _text(dialect: sa.Dialect, table: sa.Table, names: tuple[str, ...]) -> str:
    """Return the INSERT of these columns as this dialect writes it."""
    return _row_statement(table, *_computed(names)).compile(dialect=dialect, column_keys=names).string


# ------------------------------------------------------------------------------------------------ one by one


def _insert_alike(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    """Write one statement for each run of messages that fill the same columns."""
    for names, alike in groupby(map(_columns, messages), key=dict.keys):
        if "given_id" in names:
            for columns in alike:
                _insert_given(connection, table, columns)
        else:
            connection.execute(_row_statement(table, *_computed(names)), list(alike))


def _computed(names: Collection[str]) -> tuple[bool, bool, bool]:
    """Return which of the columns that the database computes a message has."""
    return "delay_s" in names, "expires_s" in names, "given_id" in names


@cache
def _row_statement(table: sa.Table, is_delayed: bool, is_expiring: bool, has_given_id: bool) -> sa.Insert:
    statement = table.insert()
    if has_given_id:
        statement = statement.values(id=new_id(table.schema, sa.bindparam("given_id", type_=Id)))
    if is_delayed:
        statement = statement.values(due_at=_seconds_from_now("delay_s"))
    return statement.values(expires_at=_seconds_from_now("expires_s")) if is_expiring else statement


def _seconds_from_now(parameter: str) -> DueIn:
    return DueIn(sa.bindparam(parameter, type_=sa.Float))


def _insert_given(connection: sa.Connection, table: sa.Table, columns: dict[str, Any]) -> None:
    """Write a message with a given id on SQLite, which has none of our functions."""
    statement = _given_statement(table, tuple(columns))
    if connection.execute(statement, columns, execution_options={"preserve_rowcount": True}).rowcount == 0:
        raise DuplicateId(
            f"a message with the id {columns['given_id']} was delivered already: each id is for one message; leave the "
            "id out, or treat the first message's result as yours"
        )


@cache
def _given_statement(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    history = sa.table("outbox_history", sa.column("id", Id), schema=table.schema)
    given = sa.bindparam("given_id", type_=Id)
    values: dict[str, Any] = {each: sa.bindparam(each, type_=table.c[each].type) for each in names if each in table.c}
    values["id"] = given
    if "delay_s" in names:
        values["due_at"] = _seconds_from_now("delay_s")
    if "expires_s" in names:
        values["expires_at"] = _seconds_from_now("expires_s")
    is_new = ~sa.exists().where(history.c.id == given)
    return table.insert().from_select(list(values), sa.select(*values.values()).where(is_new), include_defaults=False)


def _columns(message: Prepared) -> dict[str, Any]:
    id = "given_id" if message.has_given_id else "id"
    columns: dict[str, Any] = {id: message.id, "type": message.type, "source": message.source, "data": message.data}
    # An absent attribute keeps the column's default: with many writers, every parameter costs.
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
