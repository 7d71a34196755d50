"""What writing a message needs of a database, beyond the SQL that all have in common."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, Protocol, cast

import sqlalchemy as sa

from outbox.errors import InvalidTarget

# missing: there is no such table, function or schema; taken: a message with the given id exists or is in the history
Refusal = Literal["missing", "taken"]


class Dialect(Protocol):
    """What writing a message needs of a database: the module `dialect` in its folder.

    The module also registers the database's SQL for `outbox.writing.columns.DueIn` (``sqlalchemy.ext.compiler``).
    """

    # the types of columns, which `outbox.tables.types` describes
    BigInt: sa.types.TypeEngine[Any]
    Id: sa.types.TypeEngine[Any]
    Instant: sa.types.TypeEngine[Any]
    JSON: sa.types.TypeEngine[Any]
    TxId: sa.types.TypeEngine[Any]

    def insert(self, into: Any) -> Any:
        """Return an INSERT into a table or an ORM class, with the methods of SQLAlchemy's INSERT for PostgreSQL.

        They are ``on_conflict_do_nothing``, ``on_conflict_do_update`` (with ``where``), ``excluded`` and ``returning``.
        A row that exists and stays as it is does not count in ``rowcount``, and is not returned.
        """

    def joins(self, connection: sa.Connection) -> bool:
        """Return whether a write on the connection is undone if its transaction is rolled back.

        In autocommit mode it is not. If the driver needs help to undo it, this method gives that help. It makes no
        round trip, because it is called for each message.
        """

    def wait_for_turns(self, connection: sa.Connection, schema: str | None, ordering_keys: Sequence[str]) -> None:
        """Wait until no other transaction holds the keys, and hold them until this one ends.

        Args:
            connection: In the caller's transaction.
            schema: The schema of our tables; ``None``: the connection's first. Always ``None`` without schemas.
            ordering_keys: Sorted, without repetition. Nothing needs to be done if writers take turns anyway.
        """

    def write(self, connection: sa.Connection, table: sa.Table, messages: Sequence[Any]) -> None:
        """Insert messages in their order, in which their positions grow.

        `outbox.writing.columns` has the columns (`columns_of`) and an INSERT of one message (`insert_of`). For that
        INSERT, a dialect passes the SQL that returns a given id and fails if it is in the history (`NewId`).

        Args:
            connection: In the caller's transaction.
            table: The columns of ``outbox_message`` that a producer fills.
            messages: `outbox.draft.Prepared`, at least one.
        """

    def refusal(self, error: sa.exc.DBAPIError, said: str) -> Refusal | None:
        """Return why the database refused our statement; ``None`` for any other error.

        Args:
            error: The error, from any driver of this database that a host may use.
            said: The driver's message, on one line. It contains the name of one of our tables or functions. If the
                driver names only the constraint, give an unnamed constraint such a name, for example
                ``outbox_message_id``.
        """

    def first_on_path(self, connection: sa.Connection, schema: str | None) -> AbstractContextManager[object]:
        """Create tables in this schema, which is created if necessary, until the block ends.

        For ``None``, and for a database without schemas, do nothing.
        """


def dialect_of(bind: sa.Connection | sa.Engine) -> Dialect:
    """Return the dialect of a connection's database."""
    return dialect_named(bind.dialect.name)


@cache
def dialect_named(name: str) -> Dialect:
    """Return the dialect of a database, by SQLAlchemy's name of it; no other database's module is imported.

    Raises:
        InvalidTarget: There is no outbox for such a database.
    """
    if find_spec(folder := f"outbox.writing.dialects.{name}") is None:
        raise InvalidTarget(
            f"the outbox is in PostgreSQL or SQLite, but this connection is to {name}: pass a session or connection of "
            "the database that holds the outbox's tables"
        )
    return cast("Dialect", import_module(f"{folder}.dialect"))
