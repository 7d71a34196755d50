"""Check that the names of a session's files still refer to the files that it has open."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from relay.databases.sqlite.connections import file_at
from relay.databases.sqlite.store.connection import OwningConnection
from relay.databases.store.contract import Lost
from relay.platform.watchdog import EXIT_CODE

log = structlog.get_logger("relay")


class SessionFiles:
    """The files that have these names when this is created: the database and the lock, before the database is opened.

    Another file may get such a name: a backup replaces the database, or someone removes the lock and the next relay
    creates a new one. The session would then continue with a file that no other process can see.

    Args:
        paths: The names of the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = {path: file_at(path) for path in paths}

    def check(self) -> None:
        """Raise `Lost` if a name now refers to another file, or to none."""
        for path, file in self._files.items():
            if file_at(path) != file:
                raise Lost(f"{path} was removed or replaced while this relay had it open")


class LogFiles:
    """The two files of SQLite's log, which exist as long as the session has them open.

    If the files are removed, each process continues with those that it has open, and a new process creates new ones:
    the two processes see nothing of each other. SQLite shares open files between the connections of a process, so only
    another process can use the new ones.

    Args:
        connection: A connection that has already read or written.
    """

    def __init__(self, connection: OwningConnection) -> None:
        self._connection = connection
        self._paths = [connection.path.with_name(connection.path.name + suffix) for suffix in ("-wal", "-shm")]
        self._files = [file_at(path) for path in self._paths]
        self._was_missed = False

    def check(self) -> None:
        """End this process if the log does not belong to the database any more.

        The process ends at once, because the orderly end of a connection would delete the new log. It does not end at
        the first check that misses the log, because a person who replaces the database may begin with the log.
        """
        is_missed = [file_at(path) for path in self._paths] != self._files
        was_missed, self._was_missed = self._was_missed, is_missed
        if not (was_missed and is_missed):
            return
        if not _has_content(self._paths[0]):  # there is no new log yet: keep what only the old log has
            with suppress(sqlite3.Error):
                self._connection.bare.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        names = " or ".join(path.name for path in self._paths)
        log.critical("database_log_removed", reason=f"{names} was removed or replaced while processes had it open")
        os._exit(EXIT_CODE)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
