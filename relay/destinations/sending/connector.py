"""One attempt to connect at a time, whose end everyone waits for who needs the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What an attempt makes."""

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""

    async def close(self) -> None:
        """Let go of it."""


T = TypeVar("T", bound=Closable)


class Connector(Generic[T]):
    """Keeps one connection, and makes another when it is needed and the last one is lost.

    Args:
        connect: Makes one attempt, and raises where it fails.
    """

    def __init__(self, connect: Callable[[], Awaitable[T]]) -> None:
        self._connect = connect
        self._made: T | None = None
        self._attempt: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the connection; raise what the attempt to make one raised."""
        if self._made is not None and self._made.is_open:
            return self._made
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.create_task(self._again())
            self._attempt.add_done_callback(_look_at)
        return await asyncio.shield(self._attempt)

    async def drop(self, made: T) -> None:
        """Close a connection that is of no use any more; the next one who needs one makes another."""
        if self._made is made:
            self._made = None
        await made.close()

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
    """Else asyncio logs what it raised, where everyone who waited for it was cancelled."""
    if not attempt.cancelled():
        attempt.exception()
