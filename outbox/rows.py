"""Writing messages: the columns that a producer fills, and how they are filled.

Whatever the database gives a message (position, shard, transaction id, size, instant of creation) is left to the
database, and nothing is read back, so that a worker needs no right but INSERT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from json.encoder import encode_basestring as quoted
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from outbox.draft import Prepared
from outbox.message import NO_HEADERS
from outbox.observing import observers
from outbox.tables import Id, Instant
from outbox.transaction import join_transaction, wait_for_turn

SCHEDULED = "scheduled"

# The text of one statement; far below what any driver or server takes, far above what a thousand messages need.
MAX_BATCH_CHARACTERS = 8 * 1024 * 1024


class JsonText(sa.TypeDecorator[str]):
    """JSON that is text already: it reaches the database as it was checked, whatever serialiser the engine has."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        return dialect.type_descriptor(postgresql.JSONB() if dialect.name == "postgresql" else sa.JSON())

    def bind_processor(self, dialect: sa.Dialect) -> None:
        return None


class DueIn(FunctionElement[Any]):
    """The instant so many seconds from now, by the database's clock."""

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
    """The columns of ``outbox_message`` that a producer fills."""
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
        sa.Column("state", sa.Text, server_default=sa.FetchedValue()),
    )


def write(connection: sa.Connection, schema: str | None, messages: Sequence[Prepared]) -> None:
    """Write messages at once, in their order, as part of the connection's transaction."""
    _prepare_transaction(connection, messages)
    _insert(connection, message_table(schema), messages)
    for observer in observers:
        observer.written(messages, connection)


def _prepare_transaction(connection: sa.Connection, messages: Sequence[Prepared]) -> None:
    join_transaction(connection)
    for key in dict.fromkeys(each.ordering_key for each in messages if each.strict_order):
        assert key is not None
        wait_for_turn(connection, key)


def _insert(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    if len(messages) == 1:
        columns = _columns(messages[0])
        connection.execute(_row_statement(table, "delay_s" in columns), columns)
    elif connection.dialect.name == "postgresql":
        _insert_in_batches(connection, table, messages)
    else:
        _insert_alike(connection, table, messages)


# ------------------------------------------------------------------------------------------------ one by one


def _insert_alike(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    """One statement per run of messages that fill the same columns."""
    for names, alike in groupby(map(_columns, messages), key=dict.keys):
        connection.execute(_row_statement(table, "delay_s" in names), list(alike))


@cache
def _row_statement(table: sa.Table, is_delayed: bool) -> sa.Insert:
    statement = table.insert()
    return statement.values(due_at=DueIn(sa.bindparam("delay_s", type_=sa.Float))) if is_delayed else statement


def _columns(message: Prepared) -> dict[str, Any]:
    columns: dict[str, Any] = {"id": message.id, "type": message.type, "source": message.source, "data": message.data}
    # What a message does not have is left to the column: with many writers every parameter counts.
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
    return columns


# ---------------------------------------------------------------------------------- many at once (PostgreSQL)


def _insert_in_batches(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    # An executemany costs the server five times as much: a plan, a trigger and a reply for every row.
    statement = _batch_statement(table)
    for batch in _batches(messages):
        connection.execute(statement, {"batch": batch})


@cache
def _batch_statement(table: sa.Table) -> sa.Insert:
    """INSERT … SELECT … FROM jsonb_to_recordset(:batch), whose rows come out in the order of the array."""
    columns = [sa.Column(each.name, each.type) for each in table.columns if each.name != "state"]
    record = (
        sa.func.jsonb_to_recordset(sa.cast(sa.bindparam("batch", type_=sa.Text), postgresql.JSONB))
        .table_valued(*columns, sa.Column("delay_s", postgresql.DOUBLE_PRECISION))
        .render_derived(name="record", with_types=True)
    )
    due_at = sa.func.coalesce(record.c.due_at, DueIn(record.c.delay_s))
    values = [due_at if each.name == "due_at" else record.c[each.name] for each in columns]
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
    """The message as an object; id, type, data and headers are known to need no quoting."""
    optional = ""
    if message.subject is not None:
        optional += f',"subject":{quoted(message.subject)}'
    if message.ordering_key is not None:
        optional += f',"ordering_key":{quoted(message.ordering_key)}'
    if message.due_at is not None:
        optional += f',"due_at":"{message.due_at.isoformat()}"'
    if message.delay_s is not None:
        optional += f',"delay_s":{message.delay_s!r}'
    return (
        f'{{"id":"{message.id}","type":"{message.type}","source":{quoted(message.source)},"data":{message.data},'
        f'"headers":{message.headers}{optional}}}'
    )
