"""The threads that a plain listener runs in.

A thread cannot be stopped: an overrunning call keeps its thread until it ends. To limit the effect to that thread, this
module tracks overrunning calls, and the calls that got no thread because of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import Any

from relay.destinations.listener.transaction.commit_gate import Overran
from relay.observe.text import payload_mask
from relay.observe.tracing import tracer


class NoThread(Overran):
    """The deadline passed before a thread was free, so the call was not made."""


class Threads:
    """A fixed number of threads.

    Args:
        count: The number of threads.
        name: Their name in debuggers.
        enough: The number of overrunning calls that block all other calls: as many as there are threads, or one if it
            holds SQLite's write lock.
    """

    def __init__(self, count: int, name: str, *, enough: int) -> None:
        self._enough = enough
        self._carries_context = tracer() is not None  # the listener then finds the span in which it runs
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._overran: dict[Future[Any], tuple[str, float]] = {}

    async def run(self, message_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread, and return what it returns.

        Raises:
            CancelledError: The caller was cancelled while the function ran; it continues to run.
            NoThread: The caller was cancelled before the function ran, so it never will.
        """
        if self._carries_context or payload_mask.get() is not None:
            function = partial(copy_context().run, function)
        future = self._pool.submit(function, *arguments)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancel():
                raise NoThread from None
            self._overran[future] = message_id, monotonic()
            future.add_done_callback(lambda done: self._overran.pop(done, None))
            raise

    def is_at_work_on(self, message_id: str) -> bool:
        """Return whether an overrunning call is still working on this message."""
        return any(id_ == message_id for id_, _ in list(self._overran.values()))

    @property
    def held_s(self) -> float:
        """Return how long overrunning calls have held all threads, in seconds; 0 while a call can run."""
        since = sorted(at for _, at in list(self._overran.values()))
        return monotonic() - since[self._enough - 1] if len(since) >= self._enough else 0.0

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
