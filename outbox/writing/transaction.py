"""Checks of the caller's connection and transaction, and the lock that orders the messages of a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from outbox.errors import NoTransaction


def join_transaction(connection: sa.Connection) -> None:
    """Ensure that a write on the connection is undone if the connection's transaction is rolled back.

    Raises:
        NoTransaction: The connection commits every statement by itself.
    """
    if _commits_by_itself(connection):
        raise NoTransaction(
            "the connection is in autocommit mode, so the result and the message about it could not be committed "
            'together: use an engine or connection without isolation_level="AUTOCOMMIT"'
        )
    if connection.dialect.name == "sqlite" and connection.in_nested_transaction():
        _keep_savepoints(connection)


def takes_text(connection: sa.Connection) -> bool:
    """Return whether a message's INSERT may go to the driver as text that was compiled once.

    Each time it executes a statement, SQLAlchemy makes a key of it to find its text, and converts the parameters: a
    tenth of a worker's time for a message. None of a message's values needs a conversion for a driver that names its
    parameters (psycopg, psycopg2). But a host may have SQLAlchemy change statements, by a map of schemas or in a
    ``before_execute`` hook; it then sees ours as well.
    """
    if connection.dialect.paramstyle != "pyformat" or connection.dispatch.before_execute:
        return False
    return "schema_translate_map" not in connection.get_execution_options()


def wait_for_turns(connection: sa.Connection, schema: str | None, ordering_keys: Sequence[str]) -> None:
    """Wait until no other transaction holds the keys, and hold them until this one ends.

    A key shares its lock with one in 1,024 others. SQLite's writers take turns anyway.

    Source: https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-ROWS
    """
    if connection.dialect.name == "postgresql":
        functions = sa.func if schema is None else getattr(sa.func, schema)
        connection.execute(sa.select(functions.outbox_take_turns(sa.cast(list(ordering_keys), sa.ARRAY(sa.Text)))))


def _commits_by_itself(connection: sa.Connection) -> bool:
    if connection.dialect.name == "sqlite":
        return _sqlite_commits_by_itself(connection.connection.driver_connection)
    # The driver knows the mode, whether it was set on the driver, connection, session or engine. No round trip.
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))


def _sqlite_commits_by_itself(driver: Any) -> bool:
    # Without an isolation level the driver never begins a transaction. A host may begin one itself, as SQLAlchemy's
    # manual advises, so we check whether a transaction is open.
    never_begins = driver.isolation_level is None or getattr(driver, "autocommit", None) is True
    return never_begins and not driver.in_transaction


def _keep_savepoints(connection: sa.Connection) -> None:
    """Keep the release of an outermost savepoint from committing.

    Python's sqlite3 begins a transaction before an INSERT, but not before a SAVEPOINT. A savepoint that comes first
    *is* then the transaction: its RELEASE commits, and a later rollback undoes nothing. The message would be sent
    although its transaction was rolled back. So savepoints are kept until the COMMIT or ROLLBACK, which changes nothing
    else.

    Source: https://www.sqlite.org/lang_savepoint.html,
        https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    """
    if not sa.event.contains(connection, "before_cursor_execute", _leave_release_to_the_end):
        sa.event.listen(connection, "before_cursor_execute", _leave_release_to_the_end, retval=True)


def _leave_release_to_the_end(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    if statement.startswith("RELEASE SAVEPOINT"):
        return "SELECT 1", parameters
    return statement, parameters
