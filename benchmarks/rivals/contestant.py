"""The common parts of the Python rivals' workers: the command line, the clock, and what they print.

    python NAME_worker.py prepare|drain|work DATABASE_URL [MESSAGES]

`drain` prints its rate; its clock stops when the last listener has been *called*, which is kinder than ours: a relay's
stops when the last message has been *settled*. `work` runs until it is ended, and prints each second how many messages
were handled and what the median claim took. These files run in the rivals' environment and import nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any


class Contestant:
    """Counts what is handled, and times the claims.

    Args:
        count: How many messages there are; 0: no limit.
    """

    def __init__(self, count: int) -> None:
        self.count, self.handled = count, 0
        self.claims_s: list[float] = []
        self.began_at = 0.0
        self.all_handled = asyncio.Event()

    def begin(self) -> None:
        self.began_at = time.perf_counter()

    def handle(self) -> None:
        self.handled += 1
        if self.handled == self.count:
            print(json.dumps({"rate": self.count / (time.perf_counter() - self.began_at)}), flush=True)
            self.all_handled.set()

    def timing(self, claim: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Return the same claim with its time measured."""

        async def timed(*args: Any, **named: Any) -> Any:
            began_at = time.perf_counter()
            found = await claim(*args, **named)
            self.claims_s.append(time.perf_counter() - began_at)
            return found

        return timed

    async def tell(self) -> None:
        """Print the times every second, forever."""
        while True:
            await asyncio.sleep(1)
            claims_s, self.claims_s = self.claims_s, []
            claim_ms = statistics.median(claims_s) * 1000 if claims_s else None
            print(json.dumps({"at": time.monotonic(), "handled": self.handled, "claim_ms": claim_ms}), flush=True)


def main(
    prepare: Callable[[str], Awaitable[None]], work: Callable[[str, Contestant], Awaitable[None]], *, uvloop: bool
) -> None:
    """Run the action of the command line.

    Args:
        prepare: Creates the tables.
        work: Delivers until told to stop, or until all are handled.
        uvloop: Whether it is faster on uvloop.
    """
    logging.disable(logging.WARNING)
    action, url, *rest = sys.argv[1:]

    async def run() -> None:
        if action == "prepare":
            await prepare(url)
            return
        contestant = Contestant(int(rest[0]) if rest else 0)
        teller = asyncio.create_task(contestant.tell()) if not contestant.count else None
        await work(url, contestant)
        if teller is not None:
            teller.cancel()

    if uvloop:
        import uvloop as loop

        loop.run(run())
    else:
        asyncio.run(run())
