"""Check the caller's transaction."""

from __future__ import annotations

import sqlalchemy as sa

from outbox.errors import NoTransaction
from outbox.writing.dialects.dialect import Dialect, dialect_of


def join_transaction(connection: sa.Connection) -> Dialect:
    """Ensure that a write is undone if the connection's transaction is rolled back; return the database's dialect.

    Raises:
        InvalidTarget: The connection is to a database that cannot hold an outbox.
        NoTransaction: The connection commits every statement by itself.
    """
    dialect = dialect_of(connection)
    if not dialect.joins(connection):
        raise NoTransaction(
            "the connection is in autocommit mode, so the result and the message about it could not be committed "
            'together: use an engine or connection without isolation_level="AUTOCOMMIT"'
        )
    return dialect
