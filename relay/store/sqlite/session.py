"""Opening owning sessions."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from filelock import FileLock, Timeout

from relay.database import Database
from relay.store.contract import ANY_GENERATION, Standby
from relay.store.sqlite.connection import File
from relay.store.sqlite.ownership import Owning
from relay.store.sqlite.ownership_sql import UNREGISTER
from relay.store.sqlite.waking import Waking


class SqliteStore:
    """Opens owning sessions on an SQLite file.

    Args:
        database: The file.
        keep_history: Whether what was delivered moves to history or is deleted.
    """

    def __init__(self, database: Database, *, keep_history: bool) -> None:
        self.file = File(database.path)
        self.keep_history = keep_history

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> SqliteSession:
        path = self.file.path
        lock = FileLock(path.with_name(path.name + ".relay.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise Standby(f"another relay owns {path}; this one stands by and takes over when it ends") from None
        try:
            return SqliteSession(self, lock, relay_id, generation)
        except BaseException:
            lock.release()
            raise


class SqliteSession(Owning, Waking):
    """One owning session."""

    def __init__(self, store: SqliteStore, lock: FileLock, relay_id: str, generation: int) -> None:
        super().__init__(store.file, generation=generation, keep_history=store.keep_history, relay_id=relay_id)
        self._lock = lock
        self._begin_reading()
        self._begin_waking()

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._run(UNREGISTER, number=self._number)
        with suppress(sqlite3.Error):
            self._db.close()
        self._lock.release()
