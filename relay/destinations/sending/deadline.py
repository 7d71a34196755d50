"""A deadline that all attempts of a destination have in common, with one timer for all of them.

``asyncio.timeout`` sets a timer for each attempt, which takes three times as long: 5 µs. Since every attempt has the
same time limit, the first attempt to begin is the first to be late. So a queue replaces the timers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any


class Deadline:
    """Ends attempts that take longer than a fixed time.

    Args:
        after_s: The time, in seconds.

    Example:
        >>> deadline = Deadline(10.0)
        >>> with deadline.attempt():  # raises TimeoutError after ten seconds
        ...     await exchange()
    """

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        self._attempts: deque[Attempt] = deque()  # in the order of their deadlines; some have ended
        self._timer: asyncio.TimerHandle | None = None

    def attempt(self, began_at: float | None = None) -> Attempt:
        """Return the context of an attempt by the current task.

        Args:
            began_at: When it began, by the event loop's clock; ``None``: now. No other attempt may have begun since.
        """
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        attempts = self._attempts
        while attempts and attempts[0].task is None:
            attempts.popleft()
        begun = Attempt(task, (loop.time() if began_at is None else began_at) + self.after_s)
        attempts.append(begun)
        if self._timer is None:
            self._timer = loop.call_at(begun.at, self._ring, loop)
        return begun

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the attempts that are late, and set the timer for the next attempt that goes on."""
        attempts, now = self._attempts, loop.time()
        while attempts and (attempts[0].task is None or attempts[0].at <= now):
            attempts.popleft().expire()
        self._timer = loop.call_at(attempts[0].at, self._ring, loop) if attempts else None


class Attempt:
    """The context of one attempt; as a context manager, it turns the deadline's cancellation into a TimeoutError.

    Args:
        task: The task to cancel; ``None`` once the attempt has ended.
        at: When, by the event loop's clock.

    Attributes:
        is_expired: Whether the deadline has cancelled it.
    """

    __slots__ = ("_cancelling", "at", "is_expired", "task")

    def __init__(self, task: asyncio.Task[Any], at: float) -> None:
        self.task: asyncio.Task[Any] | None = task
        self.at = at
        self._cancelling = task.cancelling()
        self.is_expired = False

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self.task = self.task, None
        assert task is not None
        # As in asyncio.timeout: if the task was also cancelled from elsewhere, that stays a cancellation.
        if self.is_expired and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the attempt, unless it has ended."""
        if self.task is not None:
            self.is_expired = True
            self.task.cancel()
