"""The inbox: the messages that each listener has processed, so that a duplicate does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from outbox.checks.ids import comparable_id
from outbox.checks.payload import is_storable
from outbox.errors import InvalidId
from outbox.tables import tables
from outbox.writing.refusals import explained
from outbox.writing.transaction import join_transaction


def mark(connection: sa.Connection, schema: str | None, listener: str, message_id: UUID | str) -> bool:
    """Record that a listener has processed a message; return ``False`` if that was recorded before.

    Args:
        connection: A connection in the transaction of the listener's work.
        schema: The PostgreSQL schema of the inbox, if it is not the first of the ``search_path``.
        listener: The listener's name.
        message_id: The message's id.
    """
    return _record(connection, schema, listener, message_id).rowcount == 1


def mark_returning(
    connection: sa.Connection, listener: str, message_id: str, returning: Sequence[sa.ColumnElement[Any]]
) -> sa.Row[Any] | None:
    """Do the same as `mark`; return the values of these expressions, or ``None`` if it was recorded before.

    On PostgreSQL the expressions must name no column: that would require the right to SELECT.
    """
    return _record(connection, None, listener, message_id, returning).first()


def _record(
    connection: sa.Connection,
    schema: str | None,
    listener: str,
    message_id: UUID | str,
    returning: Sequence[sa.ColumnElement[Any]] = (),
) -> sa.CursorResult[Any]:
    values = {
        "listener": _checked("listener", listener),
        "message_id": _checked("message id", comparable_id(message_id)),
    }
    dialect = join_transaction(connection)
    inbox = tables(schema).inbox
    # Without a conflict target: to name one requires the right to SELECT, which a worker's role lacks.
    statement = dialect.insert(inbox).values(values).on_conflict_do_nothing()
    if returning:
        statement = statement.returning(*returning)
    # SQLAlchemy closes the cursor of an INSERT before its count can be read, and psycopg then returns -1.
    with explained(dialect):
        return connection.execute(statement, execution_options={"preserve_rowcount": True})


def connection_of(session: Session, schema: str | None) -> sa.Connection:
    """Return the session's connection to the database that holds the inbox."""
    return session.connection(bind_arguments={"clause": sa.insert(tables(schema).inbox)})


def _checked(what: str, text: str) -> str:
    if isinstance(text, str) and text and is_storable(text):
        return text
    raise InvalidId(
        f"the {what} {ascii(text)[:60]} cannot be stored: pass text, not empty, without NUL or lone surrogates"
    )
