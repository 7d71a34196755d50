"""Sleep, and check often, because SQLite has no notifications."""

from __future__ import annotations

import os
import select
from time import monotonic

from relay.databases.sqlite.store.connection import OwningConnection

LOOK_S = 0.005  # between two checks whether another connection has written


class Waking:
    """The sleep of a session.

    Args:
        connection: The open file of the session.
    """

    def __init__(self, connection: OwningConnection) -> None:
        self._db = connection
        with connection.guard():
            self._version = self._data_version()

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        """Sleep until another connection has written, `wake_fd` wakes this thread, or the time is over."""
        poll = select.poll()
        poll.register(wake_fd, select.POLLIN)
        deadline = monotonic() + timeout_s
        while (left := deadline - monotonic()) > 0:
            if poll.poll(min(left, LOOK_S) * 1000):
                os.read(wake_fd, 4096)
                return False
            if self._was_written():
                return True
        return False

    def _was_written(self) -> bool:
        with self._db.guard():
            version = self._data_version()
        changed, self._version = version != self._version, version
        return changed

    def _data_version(self) -> int:
        return int(self._db.one("PRAGMA data_version"))

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        return wanted_s

    def awake(self) -> None:
        """Do nothing: there are no notifications."""
