"""Notify open pages of new data: one read a second for all of them, none while no page is open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from outbox.errors import OutboxError
from relay.admin.access.deadline import TooMuch

LONGEST_S = 30 * 60  # a browser reconnects by itself


class Live:
    """One read for all open pages.

    Args:
        look: Returns the data to send; called in a thread.
        every_s: The shortest time between two reads, in seconds.
    """

    def __init__(self, look: Callable[[], dict[str, Any]], every_s: float) -> None:
        self._look, self._every_s = look, every_s
        self._followers: set[asyncio.Queue[str]] = set()
        self._task: asyncio.Task[None] | None = None
        self.looks = 0

    async def follow(self) -> AsyncIterator[str]:
        """Yield events in the format of `text/event-stream`, until the browser disconnects."""
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        self._followers.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="dashboard-live")
        try:
            yield "retry: 3000\n\n"
            deadline = asyncio.get_running_loop().time() + LONGEST_S
            while (left_s := deadline - asyncio.get_running_loop().time()) > 0:
                try:
                    event = await asyncio.wait_for(queue.get(), left_s)
                except TimeoutError:
                    return
                yield event
        finally:
            self._followers.discard(queue)

    async def _run(self) -> None:
        while self._followers:
            event = await self._event()
            for queue in self._followers:
                if queue.empty():  # a page that does not read misses events, and holds up no other
                    queue.put_nowait(event)
            await asyncio.sleep(self._every_s)

    async def _event(self) -> str:
        self.looks += 1
        try:
            found = await run_in_threadpool(self._look)
        except (OutboxError, TooMuch) as error:
            found = {"trouble": str(error)}
        return f"event: picture\ndata: {json.dumps(found)}\n\n"
