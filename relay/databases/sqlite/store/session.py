"""Open owning sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from relay.databases.address import Address
from relay.databases.sqlite.store.connection import OwningConnection, as_lost
from relay.databases.sqlite.store.files import SessionFiles
from relay.databases.sqlite.store.ownership import Ownership
from relay.databases.sqlite.store.presence import side_file
from relay.databases.sqlite.store.reading import Reading
from relay.databases.sqlite.store.settling import Settling
from relay.databases.sqlite.store.waking import Waking
from relay.databases.store.contract import ANY_GENERATION, Lost, Standby


class SqliteStore:
    """Opens owning sessions on an SQLite file.

    Args:
        database: The file.
        keep_history: Whether settled messages move to the history or are deleted.
        skipping: The destinations whose dead letters do not hold their successors up.
    """

    def __init__(self, database: Address, *, keep_history: bool, skipping: Sequence[str] = ()) -> None:
        self.path = database.path
        self.keep_history = keep_history
        self.skipping = list(skipping)

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> SqliteSession:
        path = self.path
        lock = FileLock(side_file(path), timeout=0, mode=0o600)
        try:
            lock.acquire()
        except Timeout:
            raise Standby(f"another relay owns {path}; this one stands by and takes over when it ends") from None
        except OSError as error:
            raise Lost(f"{side_file(path)} cannot be locked: {error.strerror}") from error
        try:
            return SqliteSession(self, lock, relay_id, generation)
        except sqlite3.DatabaseError as error:
            lock.release()
            raise as_lost(error) or error from error
        except BaseException:
            lock.release()
            raise


class SqliteSession:
    """One owning session: an open file, its lock, and the parts of the session by their purpose."""

    def __init__(self, store: SqliteStore, lock: FileLock, relay_id: str, generation: int) -> None:
        files = SessionFiles([store.path, Path(lock.lock_file)])
        self._lock = lock
        self.connection = OwningConnection(store.path, generation=generation, skipping=store.skipping)
        self.ownership = Ownership(self.connection, files, relay_id=relay_id)
        self.reading = Reading(self.connection)
        self.settling = Settling(self.connection, keep_history=store.keep_history)
        self.waking = Waking(self.connection)

    def close(self) -> None:
        with suppress(sqlite3.Error):  # the row is then removed later, like that of a relay that has died
            self.ownership.leave()
        with suppress(sqlite3.Error):  # the lock must be released in any case
            self.connection.bare.close()
        self._lock.release()
