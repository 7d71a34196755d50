"""The threads that a plain listener runs in.

A thread cannot be stopped: a call that overruns keeps its own until it comes to its end, whenever that is. So that it
costs others nothing but that thread, it is known which calls these are, and who had no thread because of them.
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
from relay.observe.tracing import tracer


class NoThread(Overran):
    """The deadline came before there was a thread, so that nothing was begun."""


class Threads:
    """So many threads.

    Args:
        count: How many.
        name: What debuggers show them as.
        enough: So many that overrun hold all others up: each of them, or the one that has SQLite's only write lock.
    """

    def __init__(self, count: int, name: str, *, enough: int) -> None:
        self._enough = enough
        self._carries_context = tracer() is not None  # so that a listener finds the span it runs in
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._overran: dict[Future[Any], tuple[str, float]] = {}

    async def run(self, message_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread, and return what it returns.

        Raises:
            CancelledError: Whoever waited for it was cancelled, while it ran; it runs on.
            NoThread: The same, before it ran, and so it never will.
        """
        if self._carries_context:
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
        """Whether a call that overran is still at work on this message."""
        return any(id_ == message_id for id_, _ in list(self._overran.values()))

    @property
    def held_s(self) -> float:
        """For how long calls that overran have held everything up; 0 while something can run."""
        since = sorted(at for _, at in list(self._overran.values()))
        return monotonic() - since[self._enough - 1] if len(since) >= self._enough else 0.0

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
