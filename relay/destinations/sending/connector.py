"""Share one connection: only one attempt to connect is made at a time, and all callers wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """The result of an attempt to connect."""

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""

    async def close(self) -> None:
        """Close it."""


T = TypeVar("T", bound=Closable)


class Connector(Generic[T]):
    """Keeps one connection, and opens another when one is needed after it is lost.

    Args:
        connect: Makes one attempt, and raises if it fails.
    """

    def __init__(self, connect: Callable[[], Awaitable[T]]) -> None:
        self._connect = connect
        self._made: T | None = None
        self._attempt: asyncio.Task[T] | None = None

    def begin(self) -> asyncio.Task[T]:
        """Begin an attempt, if none is under way; return it."""
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.create_task(self._again())
            self._attempt.add_done_callback(_look_at)
        return self._attempt

    async def get(self) -> T:
        """Return the connection; raise the error of the attempt to open it."""
        if self._made is not None and self._made.is_open:
            return self._made
        return await asyncio.shield(self.begin())

    async def close(self) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)
        if self._made is not None:
            await self._made.close()

    async def _again(self) -> T:
        if self._made is not None:
            await self._made.close()
            self._made = None
        self._made = await self._connect()
        return self._made


def _look_at(attempt: asyncio.Task[T]) -> None:
    """Retrieve a task's error, which asyncio would otherwise log, because all its callers were cancelled."""
    if not attempt.cancelled():
        attempt.exception()
