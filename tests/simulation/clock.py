"""A clock that moves only when everything has come to rest, and an event loop that uses it."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class Stuck(AssertionError):
    """Nothing is left to happen, and the life is not over."""


class Clock:
    """The time of a simulated world, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    """Does not wait for files: instead of waiting, it moves the clock forward."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("no task waits for a time, and none can go on")
        self._clock.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which a minute costs only the work that is done in it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self._virtual_clock = clock

    def time(self) -> float:
        return self._virtual_clock.now
