"""Engines for an SQLite file, and sentences for its errors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from outbox.errors import OutboxError, SettingsError, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

BUSY_TIMEOUT_S = 30.0
STEPS = 5_000  # steps of SQLite's virtual machine: less than a millisecond


def checked(url: URL) -> URL:
    if url.database in (None, "", ":memory:"):
        raise SettingsError(
            "the database URL names no file: an outbox in memory would lose its messages; "
            "write sqlite:///path/to/outbox.db"
        )
    return url.set(drivername="sqlite")


def engine(url: URL, schema: str | None, options: dict[str, Any], *, prepares: bool, keeps_session: bool) -> sa.Engine:
    engine = sa.create_engine(url, **_options(options))
    _set_up(engine, path_of(url), before=_create_private)
    return engine


def listener_engine(url: URL, schema: str | None, options: dict[str, Any]) -> sa.Engine:
    engine = sa.create_engine(url, **_options(options))
    _set_up(engine, path_of(url), before=_require)
    return engine


def async_listener_engine(url: URL, schema: str | None, options: dict[str, Any]) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), **_options(options))
    _set_up(engine.sync_engine, path_of(url), before=_require)
    return engine


def path_of(url: URL) -> Path:
    """Return the path of the file."""
    assert url.database is not None
    return Path(url.database)


def file_at(path: Path) -> tuple[int, int] | None:
    """Return the identity of the file at a path. A deleted file stays open; a new file of its name differs.

    Returns ``None`` if there is no file, or no file that this process may look at.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _options(options: dict[str, Any]) -> dict[str, Any]:
    return {"connect_args": {"timeout": BUSY_TIMEOUT_S}} | options


def _set_up(engine: sa.Engine, path: Path, *, before: Callable[[Path], None]) -> None:
    """Set up each connection, and discard a connection whose file has been replaced."""

    def note_file(_connection: object, record: Any) -> None:
        record.info["file"] = file_at(path)

    def insist_on_file(_connection: object, record: Any, _proxy: object) -> None:
        found = file_at(path)
        if found is not None and found != record.info["file"]:
            raise sa.exc.DisconnectionError(f"the database file {path} was replaced")

    sa.event.listen(engine, "do_connect", lambda *_: before(path))
    sa.event.listen(engine, "connect", _set_pragmas)
    sa.event.listen(engine, "connect", note_file)
    sa.event.listen(engine, "checkout", insist_on_file)


def _create_private(path: Path) -> None:
    """Create the file for its owner alone, if it does not exist; SQLite gives its further files the same rights."""
    with contextlib.suppress(OSError):  # the file exists, or SQLite will report why it cannot be created
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _require(path: Path) -> None:
    """Refuse to connect to a file that does not exist: SQLite would create it, empty, where a path is misspelt."""
    with contextlib.suppress(PermissionError):  # then SQLite reports that it cannot be opened
        is_uri = str(path).startswith("file:")  # sqlite:///file:outbox.db?uri=true, which SQLite reads itself
        if not is_uri and not path.exists():
            raise sqlite3.OperationalError(f"there is no database at {path.absolute()}: `outbox db upgrade` makes one")


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def explained(error: sa.exc.DBAPIError, said: str, place: str) -> OutboxError | None:
    """Return an error for people if the file is locked, unreadable, full or not a database."""
    is_ours = isinstance(error, sa.exc.ProgrammingError | sa.exc.IntegrityError | sa.exc.DataError)
    if is_ours or not isinstance(error, sa.exc.DatabaseError):
        return None
    if "unable to open" in said or "readonly" in said:
        said += "; this user must be able to read and write the file and its folder"
    elif "not a database" in said:
        said += "; correct the path in OUTBOX_DATABASE_URL or DATABASE_URL, or restore the file"
    return Unusable(f"the database {place} cannot be used: {said}")


def is_refusal(error: BaseException | None) -> bool:
    return False


def accept_any_bytes(engine: sa.Engine) -> None:
    def on_connect(connection: Any, _record: object) -> None:
        connection.text_factory = lambda stored: stored.decode(errors="replace")

    sa.event.listen(engine, "connect", on_connect)


def limit(connection: sa.Connection, left_s: float | None) -> None:
    """Have SQLite ask every few thousand steps whether to go on."""
    driver: Any = connection.connection.driver_connection
    if left_s is None:
        driver.set_progress_handler(None, 0)
    else:
        until = time.monotonic() + left_s
        driver.set_progress_handler(lambda: time.monotonic() > until, STEPS)
