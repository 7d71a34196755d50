"""Write many messages with one statement, on PostgreSQL.

An executemany costs the server five times as much: a plan, a trigger call and a reply for every row. So the values of
each column are one parameter, which the server splits. Reading the same rows from JSON costs it a fifth more for each:
it parses each message three times. A value that all messages share, as they often do their type and always their
source, is a parameter of its own, which the server need not split.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from outbox.draft import Prepared
from outbox.message import NO_HEADERS
from outbox.writing.columns import SCHEDULED, DueIn, JsonText, message_table, new_id

# The texts of one statement: far below the limit of any driver or server, far above a thousand messages.
MAX_BATCH_CHARACTERS = 8 * 1024 * 1024

# In none of the values that are split at it: JSON escapes it, and the others are ASCII without control characters.
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


def insert_many(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
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
    """Return an element of an array's literal. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO"""
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
        values["id"] = sa.case((given["has_given_id"], new_id(table.schema, given["id"])), else_=given["id"])
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
