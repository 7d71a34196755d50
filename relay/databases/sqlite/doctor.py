"""Checks of an SQLite file."""

from __future__ import annotations

import os
import shlex
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from relay.databases.sqlite.connections import path_of
from relay.platform.finding import Finding, bad, note, ok

OLDEST = (3, 38, 0)  # the first version with the operator ->>
LEAST_FREE_BYTES = 1024**2


def examine_server(engine: sa.Engine, lease_s: float) -> Iterator[Finding]:
    """Yield findings about the library, the journal and the file."""
    yield version(sqlite3.sqlite_version_info)
    with engine.connect() as connection:
        path = path_of(engine.url)
        yield _rights(path)
        room = os.statvfs(path)
        yield disk(path, is_read_only=bool(room.f_flag & os.ST_RDONLY), free_bytes=room.f_bavail * room.f_frsize)
        mode = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())
        damage = _damage(connection)
    yield journal(mode)
    if damage == ["ok"]:
        yield ok("file", "it is sound")
    else:
        yield bad(
            "file",
            "; ".join(damage),
            "the file is damaged: its contents may be lost",
            "stop everything that uses it, copy it, and recover it: sqlite3 outbox.db .recover",
        )


def _rights(path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return ok("file rights", "only its owner may read it")
    return note(
        "file rights",
        f"{path} has the mode {mode:04o}: other users of this machine may read it",
        "it holds every message",
        f"chmod 600 {shlex.quote(str(path))}, unless they should",
    )


def disk(path: Path, *, is_read_only: bool, free_bytes: int) -> Finding:
    """Return whether the file's disk takes writes: the other checks only read, and do not notice."""
    if not is_read_only and free_bytes >= LEAST_FREE_BYTES:
        return ok("disk", "it has room")
    return bad(
        "disk",
        f"the disk of {path} is read-only" if is_read_only else f"the disk of {path} has {free_bytes:,} bytes left",
        "workers cannot emit; a relay waits until it can write, and until then it is not listed as alive",
        "mount it for writing" if is_read_only else "make room on it",
    )


def _damage(connection: sa.Connection) -> list[str]:
    try:
        return [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
    except sa.exc.DatabaseError as error:  # the file is too damaged to be checked
        return [str(error.orig)]


def version(found: tuple[int, int, int]) -> Finding:
    shown = ".".join(map(str, found))
    if found >= OLDEST:
        return ok("SQLite", f"version {shown}")
    return bad(
        "SQLite",
        f"version {shown}",
        f"the relay's statements need {'.'.join(map(str, OLDEST))}",
        "use a Python with a newer SQLite",
    )


def journal(mode: str) -> Finding:
    if mode == "wal":
        return ok("journal mode", "wal")
    return bad(
        "journal mode",
        mode,
        "without a write-ahead log, readers and the one writer wait for each other",
        "put the file on a local disk and run `outbox db upgrade`, or sqlite3 outbox.db 'PRAGMA journal_mode = wal'",
    )
