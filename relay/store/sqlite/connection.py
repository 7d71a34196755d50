"""The owning connection: an open file, on which statements run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relay.platform.database import BUSY_TIMEOUT_S
from relay.store.contract import Full, Lost
from relay.store.rows import ID, PAGE_BYTES, Row

NOT_TEXT = "it holds bytes that are not UTF-8"


class InvalidText(str):
    """Text that was not UTF-8; U+FFFD replaces the invalid bytes."""


class File:
    """The database's file.

    Args:
        path: Its path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise Lost(f"the database file {self.path} does not exist")
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = FULL").close()
        return db


class OwningConnection:
    """One session, which runs statements.

    Args:
        file: The file to open.
        generation: The generation of registered destinations that this relay knows.

    Attributes:
        unreadable: Message → why it cannot be read, since the last removal.
    """

    def __init__(self, file: File, *, generation: int) -> None:
        self._file = file
        self._db = file.connect()
        self._constants = {"registered": generation}
        self.unreadable: dict[str, str] = {}

    def _run(self, statement: str, **parameters: Any) -> sqlite3.Cursor:
        return self._db.execute(statement, {**self._constants, **parameters})

    def _one(self, statement: str, **parameters: Any) -> Any:
        cursor = self._run(statement, **parameters)
        row = cursor.fetchone()
        cursor.close()
        return row[0]

    def _page(
        self, statement: str, limit: int, room_bytes: int = PAGE_BYTES, **parameters: Any
    ) -> tuple[list[Row], bool]:
        """Return rows up to a limit of rows and bytes, without their sizes; and whether the limit was reached.

        A check for text that is not UTF-8 costs a tenth of a read, so it is made only after such text was found.
        """
        try:
            return self._page_of_text(statement, limit, room_bytes, parameters)
        except sqlite3.OperationalError as error:
            if not _is_invalid(error):
                raise
        with self._looking_out():
            rows, is_full = self._page_of_text(statement, limit, room_bytes, parameters)
        self.unreadable.update(
            (row[ID], NOT_TEXT) for row in rows if any(isinstance(each, InvalidText) for each in row)
        )
        return rows, is_full

    def _page_of_text(
        self, statement: str, limit: int, room_bytes: int, parameters: dict[str, Any]
    ) -> tuple[list[Row], bool]:
        rows: list[Row] = []
        if room_bytes <= 0:
            return rows, True
        cursor = self._run(statement, limit=limit, **parameters)
        for row in cursor:
            rows.append(row[:-1])
            room_bytes -= row[-1]
            if room_bytes <= 0:
                break
        cursor.close()
        return rows, len(rows) == limit or room_bytes <= 0

    @contextmanager
    def _looking_out(self) -> Iterator[None]:
        """Return text that is not UTF-8 as `InvalidText`, and not as an error."""
        self._db.text_factory = _text
        try:
            yield
        finally:
            self._db.text_factory = str

    def _write_one(self, statement: str, **parameters: Any) -> Any:
        with self._transaction():
            return self._one(statement, **parameters)

    @contextmanager
    def _synchronous(self, level: str) -> Iterator[None]:
        self._db.execute(f"PRAGMA synchronous = {level}").close()
        yield
        self._db.execute("PRAGMA synchronous = FULL").close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Raise `Lost` if the file is busy, full or gone: the next session tries again."""
        try:
            yield
        except sqlite3.OperationalError as error:
            kind = Full if error.sqlite_errorcode == sqlite3.SQLITE_FULL else Lost
            raise kind(str(error)) from error


def _is_invalid(error: sqlite3.OperationalError) -> bool:
    return str(error).startswith("Could not decode")  # Python's own error


def _text(stored: bytes) -> str:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return InvalidText(stored.decode(errors="replace"))
