"""The owning connection: the open file, and how to ask it things."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relay.database import BUSY_TIMEOUT_S, as_text
from relay.entry import Row
from relay.store.contract import PAGE_BYTES, Full, Lost


class File:
    """The database's file, and what its sessions have learned about it.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holds_bytes = False  # that are not UTF-8; looking out for them costs a tenth of the reading

    def connect(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise Lost(f"the database file {self.path} is not there")
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = FULL").close()
        if self.holds_bytes:
            db.text_factory = as_text
        return db


class OwningConnection:
    """One session, and how to ask it things.

    Args:
        file: What to open.
        generation: Of the registered destinations that this relay knows.
    """

    def __init__(self, file: File, *, generation: int) -> None:
        self._file = file
        self._db = file.connect()
        self._constants = {"registered": generation}

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
        """Rows that end with their size, without it, until there are enough of them or of their bytes; whether so."""
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
            if self._db.in_transaction:  # a file that is full has ended it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """A file that is busy, full or gone ends the session; the next one finds it better, or waits."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error).startswith("Could not decode"):  # Python's own error, which quotes the text
                self._file.holds_bytes = True
                raise Lost("a message holds what is not UTF-8: it is read with U+FFFD in its place") from None
            kind = Full if error.sqlite_errorcode == sqlite3.SQLITE_FULL else Lost
            raise kind(str(error)) from error
