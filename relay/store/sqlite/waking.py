"""Sleeping, and looking up often: SQLite notifies nobody."""

from __future__ import annotations

import os
import select
from time import monotonic
from typing import Any

from relay.store.sqlite.connection import OwningConnection

LOOK_S = 0.005  # between looks at whether somebody has written


class Waking(OwningConnection):
    """How a session waits."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._version = 0

    def _begin_waking(self) -> None:
        with self._guard():
            self._version = self._data_version()

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        """SQLite notifies nobody; but whether somebody has written is cheap to ask."""
        poll = select.poll()
        poll.register(wake_fd, select.POLLIN)
        deadline = monotonic() + timeout_s
        while (left := deadline - monotonic()) > 0:
            if poll.poll(min(left, LOOK_S) * 1000):
                os.read(wake_fd, 4096)
                return False
            if self._somebody_wrote():
                return True
        return False

    def _somebody_wrote(self) -> bool:
        with self._guard():
            version = self._data_version()
        changed, self._version = version != self._version, version
        return changed

    def _data_version(self) -> int:
        return int(self._one("PRAGMA data_version"))

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        return wanted_s

    def awake(self) -> None:
        """Nobody notifies, so nobody need be spared."""
