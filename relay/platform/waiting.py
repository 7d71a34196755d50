"""Wait for an event, for a limited time."""

from __future__ import annotations

import asyncio
import contextlib


async def is_set_within(event: asyncio.Event, limit_s: float) -> bool:
    """Wait until an event is set, at most for `limit_s` seconds; return whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
    return event.is_set()
