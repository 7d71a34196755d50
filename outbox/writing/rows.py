"""Write messages: the columns that a producer fills, and their statements.

The database computes the position, shard, transaction id, size and instant of creation of a message. Nothing is read
back, so a worker needs no right but INSERT.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache
from itertools import groupby
from json.encoder import encode_basestring as quoted
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from outbox.draft import Prepared
from outbox.errors import DuplicateId
from outbox.message import NO_HEADERS
from outbox.tables import Id, Instant
from outbox.writing.observing import observers
from outbox.writing.refusals import explained
from outbox.writing.transaction import join_transaction, takes_text, wait_for_turns

SCHEDULED = "scheduled"

# The text of one statement: far below the limit of any driver or server, far above the size of a thousand messages.
MAX_BATCH_CHARACTERS = 8 * 1024 * 1024


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
        _insert_in_batches(connection, table, messages)


def _insert_one(connection: sa.Connection, table: sa.Table, columns: dict[str, Any]) -> None:
    if "given_id" not in columns and takes_text(connection):
        connection.exec_driver_sql(_text(connection.dialect, table, tuple(columns)), columns)
    else:
        connection.execute(_row_statement(table, *_computed(columns)), columns)


@lru_cache(1_024)
def _text(dialect: sa.Dialect, table: sa.Table, names: tuple[str, ...]) -> str:
    """Return the INSERT of these columns as this dialect writes it."""
    return _row_statement(table, *_computed(names)).compile(dialect=dialect, column_keys=names).string


def new_id(schema: str | None, given: Any) -> Any:
    """Return the SQL that returns a given id, and fails if a message with this id has been settled already.

    The primary key only knows messages that still wait. Without this check, a second message with the same id would be
    refused or delivered depending on how fast the first one was.
    """
    function = sa.func.outbox_new_id if schema is None else getattr(sa.func, schema).outbox_new_id
    return function(given, type_=Id)


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


# ---------------------------------------------------------------------------------- many at once (PostgreSQL)


def _insert_in_batches(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    # An executemany costs the server five times as much: a plan, a trigger call and a reply for every row.
    statement = _batch_statement(table, any(each.has_given_id for each in messages))
    for batch in _batches(messages):
        connection.execute(statement, {"batch": batch})


@cache
def _batch_statement(table: sa.Table, has_given_ids: bool) -> sa.Insert:
    """Return INSERT … SELECT … FROM json_to_recordset(:batch), whose rows come out in the order of the array."""
    columns = [sa.Column(each.name, each.type) for each in table.columns if each.name != "state"]
    record = (
        sa.func.json_to_recordset(sa.cast(sa.bindparam("batch", type_=sa.Text), postgresql.JSON))
        .table_valued(
            *columns,
            sa.Column("delay_s", postgresql.DOUBLE_PRECISION),
            sa.Column("expires_s", postgresql.DOUBLE_PRECISION),
            sa.Column("given", sa.Boolean),
        )
        .render_derived(name="record", with_types=True)
    )
    due_at = sa.func.coalesce(record.c.due_at, DueIn(record.c.delay_s))
    computed = {"due_at": due_at, "expires_at": sa.func.coalesce(record.c.expires_at, DueIn(record.c.expires_s))}
    values: list[Any] = [computed.get(each.name, record.c[each.name]) for each in columns]
    if has_given_ids:
        values[0] = sa.case((record.c.given, new_id(table.schema, record.c.id)), else_=record.c.id)
    state = sa.case((due_at.is_(None), sa.literal_column("'ready'")), else_=sa.literal_column(f"'{SCHEDULED}'"))
    names = [each.name for each in columns]
    return table.insert().from_select([*names, "state"], sa.select(*values, state), include_defaults=False)


def _batches(messages: Sequence[Prepared]) -> Iterator[str]:
    records: list[str] = []
    room = MAX_BATCH_CHARACTERS
    for message in messages:
        record = _record(message)
        if room < len(record) and records:
            yield f"[{','.join(records)}]"
            records, room = [], MAX_BATCH_CHARACTERS
        records.append(record)
        room -= len(record)
    yield f"[{','.join(records)}]"


def _record(message: Prepared) -> str:
    """Return the message as a JSON object; id, type, data and headers are known to need no quoting."""
    optional = ""
    if message.subject is not None:
        optional += f',"subject":{quoted(message.subject)}'
    if message.ordering_key is not None:
        optional += f',"ordering_key":{quoted(message.ordering_key)}'
    if message.due_at is not None:
        optional += f',"due_at":"{message.due_at.isoformat()}"'
    if message.has_given_id:
        optional += ',"given":true'
    if message.delay_s is not None:
        optional += f',"delay_s":{message.delay_s!r}'
    if message.expires_at is not None:
        optional += f',"expires_at":"{message.expires_at.isoformat()}"'
    if message.expires_s is not None:
        optional += f',"expires_s":{message.expires_s!r}'
    return (
        f'{{"id":"{message.id}","type":"{message.type}","source":{quoted(message.source)},"data":{message.data},'
        f'"headers":{message.headers}{optional}}}'
    )
