"""What writing a message needs of PostgreSQL: an `outbox.writing.dialects.dialect.Dialect`.

Many messages are written with one statement. An executemany costs the server five times as much: a plan, a trigger call
and a reply for every row. So the values of each column are one parameter, which the server splits. To read the same
rows from JSON costs the server a fifth more for each row, because it parses each message three times. A value that all
messages share (often the type, and always the source) is a separate parameter, which the server need not split.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.compiler import compiles

from outbox.draft import Prepared
from outbox.message import NO_HEADERS
from outbox.writing.columns import SCHEDULED, DueIn, JsonText, columns_of, insert_of, message_table
from outbox.writing.dialects.dialect import Dialect, Refusal

if TYPE_CHECKING:
    from outbox.writing.dialects.postgresql import dialect

    _: Dialect = dialect  # mypy checks each member

__all__ = [
    "JSON", "BigInt", "Id", "Instant", "TxId", "first_on_path", "insert", "joins", "refusal", "wait_for_turns", "write",
]  # fmt: skip


class Xid8(sa.types.UserDefinedType[int]):
    """PostgreSQL's ``xid8``: a transaction id that never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


BigInt = sa.BigInteger()
Id = sa.Uuid(as_uuid=False)
Instant = sa.DateTime(timezone=True)
JSON = postgresql.JSONB()
TxId = Xid8()

# https://www.postgresql.org/docs/current/errcodes-appendix.html
MISSING = ("42P01", "42883", "3F000")  # undefined_table, undefined_function, invalid_schema_name
TAKEN = "23505"  # unique_violation

# The most text in one statement: far below the limit of any driver or server, far above a thousand messages.
MAX_BATCH_CHARACTERS = 8 * 1024 * 1024

# It is in none of the values that are split at it: JSON escapes it, and all others are ASCII without control
# characters.
SEPARATOR = "\x1f"
ALWAYS = ("id", "type", "source", "data")
OPTIONAL = ("subject", "ordering_key", "due_at", "delay_s", "expires_at", "expires_s", "has_given_id")
OWN = frozenset(("id", "data"))  # no message shares these with another one
ANY_TEXT = ("subject", "ordering_key")
TEXTS = (*ALWAYS, *ANY_TEXT, "headers")
INSTANTS = ("due_at", "expires_at")
TYPES: dict[str, Any] = {
    **{column.name: column.type for column in message_table(None).columns},
    "data": JsonText(), "headers": JsonText(), "has_given_id": sa.Boolean(),
    "delay_s": postgresql.DOUBLE_PRECISION(), "expires_s": postgresql.DOUBLE_PRECISION(),
}  # fmt: skip


def joins(connection: sa.Connection) -> bool:
    """Return whether the driver begins transactions, no matter who set its mode; this costs no round trip."""
    return not getattr(connection.connection.dbapi_connection, "autocommit", False)


def refusal(error: sa.exc.DBAPIError, said: str) -> Refusal | None:
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if state == TAKEN:
        return "taken"
    return "missing" if state in MISSING else None


def wait_for_turns(connection: sa.Connection, schema: str | None, ordering_keys: Sequence[str]) -> None:
    """Lock a row for each key; one in 1,024 other keys shares the row.

    Source: https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-ROWS
    """
    keys = sa.cast(list(ordering_keys), sa.ARRAY(sa.Text))
    connection.execute(sa.select(_functions(schema).outbox_take_turns(keys)))


@compiles(DueIn, "postgresql")
def _due_in(element: DueIn, compiler: Any, **options: Any) -> str:
    return f"clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)})"


def _new_id(schema: str | None, given: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    function: sa.ColumnElement[Any] = _functions(schema).outbox_new_id(given, type_=Id)
    return function


def _functions(schema: str | None) -> Any:
    return sa.func if schema is None else getattr(sa.func, schema)


@contextmanager
def first_on_path(connection: sa.Connection, schema: str | None) -> Iterator[None]:
    if schema is None:
        yield
        return
    connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
    before = connection.scalar(sa.text("SELECT current_setting('search_path')"))
    set_path = sa.text("SELECT set_config('search_path', :path, false)")
    connection.execute(set_path, {"path": connection.dialect.identifier_preparer.quote_schema(schema)})
    yield
    connection.execute(set_path, {"path": before})


def write(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    if len(messages) == 1:
        _write_one(connection, table, columns_of(messages[0]))
    else:
        _write_many(connection, table, messages)


def _write_one(connection: sa.Connection, table: sa.Table, columns: dict[str, Any]) -> None:
    if "given_id" not in columns and _takes_text(connection):
        connection.exec_driver_sql(_statement_text(connection.dialect, table, tuple(columns)), columns)
    else:
        connection.execute(insert_of(table, tuple(columns), _new_id), columns)


def _takes_text(connection: sa.Connection) -> bool:
    """Return whether a message's INSERT may go to the driver as text that was compiled once.

    Each time it executes a statement, SQLAlchemy makes a key of it to find its text, and converts the parameters: a
    tenth of a worker's time for a message. None of a message's values needs a conversion for a driver that names its
    parameters (psycopg, psycopg2). But a host may have SQLAlchemy change statements, by a map of schemas or in a
    ``before_execute`` hook, which has to see our statements as well.
    """
    if connection.dialect.paramstyle != "pyformat" or connection.dispatch.before_execute:
        return False
    return "schema_translate_map" not in connection.get_execution_options()


@lru_cache(1_024)
def _statement_text(dialect: sa.Dialect, table: sa.Table, names: tuple[str, ...]) -> str:
    """Return the INSERT of these columns as this dialect writes it."""
    return insert_of(table, names, _new_id).compile(dialect=dialect, column_keys=names).string


# ------------------------------------------------------------------------------------------------ many at once


def _write_many(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    """Insert messages in their order."""
    for batch in _batches(messages):
        values = Prepared._make(zip(*batch, strict=True))
        optional = frozenset(name for name in OPTIONAL if any(getattr(values, name)))
        if set(values.headers) != {NO_HEADERS}:
            optional |= {"headers"}
        names = {*ALWAYS, *optional}
        shared = frozenset(name for name in names - OWN if len(set(getattr(values, name))) == 1)
        parameters = {name: _text(name, getattr(values, name)[0]) for name in shared}
        parameters |= {name: _joined(name, values) for name in names - shared}
        connection.execute(_statement(table, optional, shared), parameters)


def _batches(messages: Sequence[Prepared]) -> Iterator[Sequence[Prepared]]:
    begin, room = 0, MAX_BATCH_CHARACTERS
    for index, message in enumerate(messages):
        texts = message.id, message.type, message.source, message.data, message.headers
        size = sum(map(len, texts)) + len(message.subject or "") + len(message.ordering_key or "")
        if room < size and begin < index:
            yield messages[begin:index]
            begin, room = index, MAX_BATCH_CHARACTERS
        room -= size
    yield messages[begin:]


def _joined(name: str, values: Prepared) -> str:
    """Return the values of a column as one parameter."""
    column: Sequence[Any] = getattr(values, name)
    if name in ANY_TEXT:
        return "{" + ",".join("NULL" if each is None else _quoted(each) for each in column) + "}"
    if name in ALWAYS or name == "headers":
        return SEPARATOR.join(column)
    return SEPARATOR.join("" if each is None else _text(name, each) for each in column)


def _text(name: str, value: Any) -> str:
    """Return a value as text, from which the server makes a value of the column's type."""
    if name in TEXTS:
        return str(value)
    return value.isoformat() if name in INSTANTS else repr(value)


def _quoted(text: str) -> str:
    """Return a value as an element of an array literal. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO"""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@cache
def _statement(table: sa.Table, optional: Collection[str], shared: Collection[str]) -> sa.Insert:
    """Return the INSERT. It has only the columns that a message of the batch has."""
    names = [*ALWAYS, *sorted(optional)]
    split = [name for name in names if name not in shared]
    rows = sa.func.unnest(*map(_split, split)).table_valued(*(sa.Column(each, sa.Text) for each in split))
    texts = {**rows.render_derived(name="record").c, **{name: sa.bindparam(name, type_=sa.Text) for name in shared}}
    given = {name: sa.cast(texts[name], TYPES[name]) for name in names}
    values: dict[str, Any] = {name: value for name, value in given.items() if name in table.c}
    if "has_given_id" in optional:
        values["id"] = sa.case((given["has_given_id"], _new_id(table.schema, given["id"])), else_=given["id"])
    for instant, seconds in (("due_at", "delay_s"), ("expires_at", "expires_s")):
        if seconds in optional:
            values[instant] = sa.func.coalesce(given.get(instant), DueIn(given[seconds]))
    if "due_at" in values:
        is_ready = values["due_at"].is_(None)
        values["state"] = sa.case((is_ready, sa.literal_column("'ready'")), else_=sa.literal_column(f"'{SCHEDULED}'"))
    return table.insert().from_select(list(values), sa.select(*values.values()), include_defaults=False)


def _split(name: str) -> sa.ColumnElement[Any]:
    """Return the array of a column's values. An empty text is NULL: no message has an empty value."""
    joined = sa.bindparam(name, type_=sa.Text)
    if name in ANY_TEXT:
        return sa.cast(joined, postgresql.ARRAY(sa.Text))
    return sa.func.string_to_array(joined, sa.literal_column("E'\\x1f'"), sa.literal_column("''"))
