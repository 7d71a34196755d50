"""A clock that moves only when everything has come to rest, and an event loop that uses it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from typing import Any


class Stuck(AssertionError):
    """Nothing is left to happen, and the life is not over."""


class Clock:
    """The time of a simulated world, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which a minute costs only the work that is done in it.

    Instead of waiting, it moves the clock forward. It does asyncio's turn without files, signals, threads and a debug
    mode: most of a life is turns.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._virtual_clock = clock

    def time(self) -> float:
        return self._virtual_clock.now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._virtual_clock.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._scheduled, handle)
        handle._scheduled = True  # type: ignore[attr-defined]
        return handle

    def _run_once(self) -> None:
        ready, scheduled, clock = self._ready, self._scheduled, self._virtual_clock
        while scheduled and scheduled[0].cancelled():
            self._leave(heappop(scheduled))
        if not ready:
            if not scheduled:
                raise Stuck("no task waits for a time, and none can go on")
            clock.now = max(clock.now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= clock.now:
            handle = heappop(scheduled)
            self._leave(handle)
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    @staticmethod
    def _leave(handle: asyncio.TimerHandle) -> None:
        handle._scheduled = False  # type: ignore[attr-defined]
