"""Write rows; repeat the write after a deadlock, and raise `RefusedRow` for a row that the database refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from relay.databases.deadlock_retry import pauses_s
from relay.databases.postgresql.store.connection import OwningConnection, sentence
from relay.databases.store.refused import RefusedRow

T = TypeVar("T")
# Errors about the row that is written: damaged bytes, and constraints and triggers, including those of a host.
REFUSALS = (
    psycopg.errors.DataCorrupted,
    psycopg.errors.PlpgsqlError,
    psycopg.errors.RaiseException,
    psycopg.errors.AssertFailure,
    psycopg.IntegrityError,
    psycopg.DataError,
)


class Writer:
    """Executes the writes of a session.

    Args:
        connection: The connection of the session.

    Attributes:
        codec: Text from outside is written in the characters of this codec, because not every database has all of
            UTF-8.
    """

    def __init__(self, connection: OwningConnection) -> None:
        self._db = connection
        self.codec = "utf-8"

    def write(self, write: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Write; repeat it after a deadlock, or if today's partition of the history is missing (no constraint's name).

        A database that is not in UTF-8 refuses characters that it does not have. After such a refusal, this session
        writes text from outside in ASCII.

        Args:
            write: Writes in one transaction.
            again: Repeats it, if that is another function.
        """
        with self._db.guard(), refusals():
            for pause_s in pauses_s():
                try:
                    return write()
                except psycopg.errors.CheckViolation as error:
                    if error.diag.table_name != "outbox_history" or error.diag.constraint_name is not None:
                        raise
                    self._db.run("SELECT outbox_add_partition((clock_timestamp() AT TIME ZONE 'UTC')::date)")
                except psycopg.errors.UntranslatableCharacter:
                    if self.codec == "ascii":
                        raise
                    self.codec = "ascii"
                except psycopg.errors.DeadlockDetected:
                    time.sleep(pause_s)  # rows are locked in the order of ids or, when settled by address, of the table
                write = again or write
            return write()


@contextmanager
def refusals() -> Iterator[None]:
    """Raise `RefusedRow` if an error is about a row that is written. Omit the detail: it may show the row's values."""
    try:
        yield
    except REFUSALS as error:
        raise RefusedRow(error.diag.message_primary or sentence(error)) from None
