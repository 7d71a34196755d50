"""Open owning sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from relay.platform.database import Database, file_at
from relay.store.contract import ANY_GENERATION, Lost, Peers, Standby
from relay.store.sqlite.connection import File
from relay.store.sqlite.ownership import Owning
from relay.store.sqlite.presence import side_file
from relay.store.sqlite.sql.ownership import UNREGISTER
from relay.store.sqlite.waking import Waking


class SqliteStore:
    """Opens owning sessions on an SQLite file.

    Args:
        database: The file.
        keep_history: Whether settled messages move to the history or are deleted.
    """

    def __init__(self, database: Database, *, keep_history: bool) -> None:
        self.file = File(database.path)
        self.keep_history = keep_history

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> SqliteSession:
        path = self.file.path
        lock = FileLock(side_file(path), timeout=0, mode=0o600)
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
    """One owning session.

    It owns the file and the lock that had these names when it began. Another file may get the name: a backup replaces
    the database, or the lock is removed and the next relay creates a new one. This session would continue with a file
    that no other process can see. So it checks with every beat whether the names still mean the same files.
    """

    def __init__(self, store: SqliteStore, lock: FileLock, relay_id: str, generation: int) -> None:
        path = store.file.path
        self._files = {each: file_at(each) for each in (path, Path(lock.lock_file))}
        super().__init__(store.file, generation=generation, keep_history=store.keep_history, relay_id=relay_id)
        self._lock = lock
        self._begin_reading()
        self._begin_waking()

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        for path, file in self._files.items():
            if file_at(path) != file:
                raise Lost(f"{path} was removed or replaced while this relay had it open")
        return super().beat(shards, wants)

    def close(self) -> None:
        with suppress(sqlite3.Error):  # its row is then removed as that of a relay that has died
            self._run(UNREGISTER, number=self._number)
        with suppress(sqlite3.Error):  # the lock must be released in any case
            self._db.close()
        self._lock.release()
