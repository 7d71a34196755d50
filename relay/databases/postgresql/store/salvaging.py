"""Read a page with an unreadable row again, row by row, so that all other rows go on.

A database in SQL_ASCII may hold any bytes, a database in WIN1252 may hold bytes that are no character, and a damaged
disk may have lost parts of a value. One such row makes the read of a whole page fail. Then the page is read again
without the columns that may be unreadable, and each of its messages is read alone. That costs a round trip for each
message, but only for such pages.
"""

from __future__ import annotations

from typing import Any

import psycopg

from relay.databases.postgresql.sql.reading import BARE_MESSAGE, MESSAGE, READ_ONE
from relay.databases.postgresql.store.connection import OwningConnection, sentence
from relay.databases.store.rows import ID, MESSAGE_COLUMNS, ORDERING_KEY, Row

UNREADABLE = (
    UnicodeDecodeError,
    psycopg.errors.UntranslatableCharacter,
    psycopg.errors.CharacterNotInRepertoire,
    psycopg.errors.DataCorrupted,
)
NOT_TEXT = "it holds bytes that are not UTF-8"


class Salvaging:
    """Fetches rows that begin with a message's columns.

    Args:
        connection: Runs the statements.

    Attributes:
        unreadable: Message → why it cannot be read, since the last removal.
    """

    def __init__(self, connection: OwningConnection) -> None:
        self._db = connection
        self.unreadable: dict[str, str] = {}

    def fetch(self, statement: str, **parameters: Any) -> list[Row]:
        try:
            return self._db.run(statement, **parameters).fetchall()
        except UNREADABLE:
            return self.salvage(statement, **parameters)

    def salvage(self, statement: str, **parameters: Any) -> list[Row]:
        """Return the same rows; the messages that cannot be read have no data."""
        rows = self._db.run(statement.replace(MESSAGE, BARE_MESSAGE), **parameters).fetchall()
        return [row if row[ID] is None else self._read_alone(row) for row in rows]

    def _read_alone(self, bare: Row) -> Row:
        reason = "it was gone when it was read again"
        try:
            if (whole := self._db.run(READ_ONE, ids=[bare[0]]).fetchone()) is not None:
                return whole + bare[len(MESSAGE_COLUMNS) :]
        except UnicodeDecodeError:
            reason = NOT_TEXT
        except UNREADABLE as error:
            reason = sentence(error)
        self.unreadable[bare[0]] = reason
        key = bare[ORDERING_KEY] and bytes.fromhex(bare[ORDERING_KEY]).decode(errors="replace")
        return (*bare[:ORDERING_KEY], key, *bare[ORDERING_KEY + 1 :])
