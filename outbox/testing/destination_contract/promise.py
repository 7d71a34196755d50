"""A promise of every destination, and the list of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from outbox.testing.destination_contract.world import World

DEADLINE_S = 90.0


class Promise(NamedTuple):
    """One promise of a destination; call it with a `World` to check it.

    Args:
        check: The function that checks it.
        is_about_outages: Whether the check needs a `World` that can become unreachable.
    """

    check: Callable[[World], Awaitable[None]]
    is_about_outages: bool

    def __call__(self, world: World) -> None:
        """Check the promise.

        Raises:
            AssertionError: The promise is not kept.
        """
        if not self.is_about_outages or world.away is not None:
            asyncio.run(self._within_a_deadline(world))

    def __str__(self) -> str:
        return self.check.__name__

    async def _within_a_deadline(self, world: World) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.check(world)
        except TimeoutError:
            raise AssertionError(f"{self}: this did not come true within {DEADLINE_S:g} s") from None


PROMISES: list[Promise] = []


def promise(check: Callable[[World], Awaitable[None]]) -> None:
    PROMISES.append(Promise(check, is_about_outages=False))


def promise_about_outages(check: Callable[[World], Awaitable[None]]) -> None:
    PROMISES.append(Promise(check, is_about_outages=True))
