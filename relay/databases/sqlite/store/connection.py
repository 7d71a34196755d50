"""The owning connection: an open file on which statements run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relay.databases.sqlite.connections import BUSY_TIMEOUT_S
from relay.databases.store.contract import Damaged, Full, Lost
from relay.databases.store.refused import RefusedRow
from relay.databases.store.rows import ID, PAGE_BYTES, Row

PRIMARY = 0xFF  # the part of SQLite's error codes that says what happened; the rest says where
NOT_TEXT = "it holds bytes that are not UTF-8"


class InvalidText(str):
    """Text that was not UTF-8; U+FFFD replaces the invalid bytes."""


class OwningConnection:
    """The open file of one session. It runs statements, and the parts of the session share it.

    Args:
        path: The file to open.
        generation: The generation of registered destinations that this relay knows.
        skipping: The destinations whose dead letters do not hold their successors up.

    Attributes:
        unreadable: Message → why it cannot be read, since the last removal.
    """

    def __init__(self, path: Path, *, generation: int, skipping: list[str]) -> None:
        self.path, self.skipping = path, skipping
        self.bare = _connect(path)
        self.constants = {"registered": generation, "skipping": json.dumps(skipping)}
        self.unreadable: dict[str, str] = {}

    def run(self, statement: str, **parameters: Any) -> sqlite3.Cursor:
        """Run a statement; lists are passed to it as JSON."""
        lists = {name: json.dumps(value) for name, value in parameters.items() if isinstance(value, list)}
        return self.bare.execute(statement, {**self.constants, **parameters, **lists})

    def one(self, statement: str, **parameters: Any) -> Any:
        ((value,),) = self.run(statement, **parameters)
        return value

    def page(
        self, statement: str, limit: int, room_bytes: int = PAGE_BYTES, **parameters: Any
    ) -> tuple[list[Row], bool]:
        """Return rows up to a limit of rows and bytes, without their sizes, and whether the limit was reached.

        A check for text that is not UTF-8 costs a tenth of a read, so it is made only after such text was found.
        """
        try:
            return self._page_of_text(statement, limit, room_bytes, parameters)
        except sqlite3.OperationalError as error:
            if not _is_invalid(error):
                raise
        with self.looking_out():
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
        cursor = self.run(statement, limit=limit, **parameters)
        for row in cursor:
            rows.append(row[:-1])
            room_bytes -= row[-1]
            if room_bytes <= 0:
                break
        cursor.close()
        return rows, len(rows) == limit or room_bytes <= 0

    @contextmanager
    def looking_out(self) -> Iterator[None]:
        """Return text that is not UTF-8 as `InvalidText`, and not as an error."""
        self.bare.text_factory = _text
        try:
            yield
        finally:
            self.bare.text_factory = str

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[None]:
        """Run a transaction; raise as `guard` does.

        Args:
            durable: Whether its end waits for the disk; if not, the next durable transaction makes it durable, too.
        """
        with self.guard():
            self.bare.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}").close()
            self.bare.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self.bare.in_transaction:  # a full disk may have ended it already
                    self.bare.execute("ROLLBACK")
                raise
            self.bare.execute("COMMIT")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raise `Lost` if the file cannot be used now (the next session tries again); `RefusedRow` for a bad row."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise RefusedRow(str(error)) from error
        except sqlite3.DatabaseError as error:
            if (lost := as_lost(error)) is None:
                raise
            raise lost from error


def as_lost(error: sqlite3.DatabaseError) -> Lost | None:
    """Return the `Lost` that an error about the file means; ``None`` if the program is at fault."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & PRIMARY
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Damaged(f"{error}: `outbox doctor` says what to do")
    if code == sqlite3.SQLITE_FULL:
        return Full(str(error))
    return Lost(str(error)) if isinstance(error, sqlite3.OperationalError) else None


def _connect(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise Lost(f"the database file {path} does not exist")
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = FULL").close()
    return db


def _is_invalid(error: sqlite3.OperationalError) -> bool:
    return str(error).startswith("Could not decode")  # Python's own error


def _text(stored: bytes) -> str:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return InvalidText(stored.decode(errors="replace"))
