"""Sleep, and check often: SQLite has no notifications."""

from __future__ import annotations

import os
import select
from time import monotonic
from typing import Any

from relay.store.sqlite.connection import OwningConnection

LOOK_S = 0.005  # between checks whether another connection has written


class Waking(OwningConnection):
    """The sleep of a session."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._version = 0

    def _begin_waking(self) -> None:
        with self._guard():
            self._version = self._data_version()

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        """Sleep until another connection has written, woken through `wake_fd` or timed out."""
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
        with self._guard():
            version = self._data_version()
        changed, self._version = version != self._version, version
        return changed

    def _data_version(self) -> int:
        return int(self._one("PRAGMA data_version"))

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        return wanted_s

    def awake(self) -> None:
        """Do nothing: there are no notifications."""
