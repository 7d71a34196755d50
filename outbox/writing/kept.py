"""The text of an INSERT, kept for each dialect: a third of a worker's time for a message was SQLAlchemy's preparation.

Each time it executes a statement, SQLAlchemy makes a key of it to find its text, and asks the type of each parameter
how to convert the value. The statements of `outbox.writing.rows` are always the same, and none of their values needs a
conversion for a driver that names its parameters (psycopg, psycopg2). So the text goes straight to the driver.

A host may have SQLAlchemy change statements: by a map of schemas, or in a `before_execute` hook. Then these see the
statement as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

_texts: WeakKeyDictionary[sa.Dialect, dict[tuple[str | None, ...], str]] = WeakKeyDictionary()


def takes_text(connection: sa.Connection) -> bool:
    """Return whether a statement may go to the driver as text: no other code has to see it first."""
    if connection.dialect.paramstyle != "pyformat" or connection.dispatch.before_execute:
        return False
    return "schema_translate_map" not in connection.get_execution_options()


def execute(
    connection: sa.Connection, schema: str | None, values: Mapping[str, Any], statement: Callable[[], sa.Insert]
) -> None:
    """Execute an INSERT that names its columns by the values.

    Args:
        connection: A connection for which `takes_text` is true.
        schema: The schema of the table.
        values: By the name of the parameter.
        statement: Builds the INSERT; called when a dialect first executes it.
    """
    texts = _texts.get(connection.dialect)
    if texts is None:
        texts = _texts[connection.dialect] = {}
    key = (schema, *values)
    text = texts.get(key)
    if text is None:
        text = texts[key] = statement().compile(dialect=connection.dialect, column_keys=list(values)).string
    connection.exec_driver_sql(text, dict(values))
