"""What writing a message needs of SQLite: an `outbox.writing.dialects.dialect.Dialect`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.compiler import compiles

from outbox.draft import Prepared
from outbox.writing.columns import DueIn, columns_of, insert_of
from outbox.writing.dialects.dialect import Dialect, Refusal

if TYPE_CHECKING:
    from outbox.writing.dialects.sqlite import dialect

    _: Dialect = dialect  # mypy checks each member

__all__ = [
    "JSON", "BigInt", "Id", "Instant", "TxId", "first_on_path", "insert", "joins", "refusal", "wait_for_turns", "write",
]  # fmt: skip


class _UtcText(sa.TypeDecorator[datetime]):
    """A point in time, as text in UTC."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


BigInt = sa.Integer()
Id = sa.String(36)
Instant = _UtcText()
JSON = sa.JSON()
TxId = sa.Integer()  # commits come one after another: a counter of changes
TAKEN = "UNIQUE constraint failed: outbox_message"
IN_HISTORY = "NOT NULL constraint failed: outbox_message.id"  # see `_new_id`


def joins(connection: sa.Connection) -> bool:
    """Return whether the driver begins transactions, or the host has begun one, as SQLAlchemy's manual advises."""
    driver: Any = connection.connection.driver_connection
    never_begins = driver.isolation_level is None or getattr(driver, "autocommit", None) is True
    if connection.in_nested_transaction():
        _keep_savepoints(connection)
    return bool(driver.in_transaction) or not never_begins


def _keep_savepoints(connection: sa.Connection) -> None:
    """Keep the release of an outermost savepoint from committing.

    Python's sqlite3 begins a transaction before an INSERT, but not before a SAVEPOINT. If a savepoint comes first, it
    *is* the transaction: its RELEASE commits, and a later rollback undoes nothing. The message would be sent although
    its transaction was rolled back. So savepoints are kept until the COMMIT or ROLLBACK. This changes nothing else.

    Source: https://www.sqlite.org/lang_savepoint.html,
        https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    """
    if not sa.event.contains(connection, "before_cursor_execute", _leave_release_to_the_end):
        sa.event.listen(connection, "before_cursor_execute", _leave_release_to_the_end, retval=True)


def _leave_release_to_the_end(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    return "SELECT 1" if statement.startswith("RELEASE SAVEPOINT") else statement, parameters


def refusal(error: sa.exc.DBAPIError, said: str) -> Refusal | None:
    if TAKEN in said or IN_HISTORY in said:
        return "taken"
    return "missing" if "no such table" in said else None


def wait_for_turns(connection: sa.Connection, schema: str | None, ordering_keys: Sequence[str]) -> None:
    """Do nothing: writers take turns anyway."""


def first_on_path(connection: sa.Connection, schema: str | None) -> AbstractContextManager[None]:
    return nullcontext()


def write(connection: sa.Connection, table: sa.Table, messages: Sequence[Prepared]) -> None:
    for names, alike in groupby(map(columns_of, messages), key=dict.keys):
        connection.execute(insert_of(table, tuple(names), _new_id), list(alike))


@compiles(DueIn, "sqlite")
def _due_in(element: DueIn, compiler: Any, **options: Any) -> str:
    seconds = f"printf('%+.3f seconds', {compiler.process(element.clauses, **options)})"
    return f"strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds})"


def _new_id(schema: str | None, given: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return null, which the column refuses, for an id in the history."""
    history = sa.table("outbox_history", sa.column("id", Id), schema=schema)
    return sa.case((~sa.exists().where(history.c.id == given), given))
