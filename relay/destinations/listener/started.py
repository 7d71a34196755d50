"""Run a coroutine's first step, and separate the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from types import CoroutineType
from typing import Any

from relay.destinations.listener.returned import check_returned


def start(awaitable: Awaitable[Any]) -> Awaitable[Any] | None:
    """Run a coroutine until it waits or ends; return the rest, or ``None`` if it ended.

    A coroutine that never waits needs no deadline, and beginning one costs more than calling several listeners.

    Args:
        awaitable: A coroutine is run here, in the task that will await its rest; an error that it raises before it
            waits is raised here. Any other awaitable is returned unchanged.

    Raises:
        ReturnedSomething: The coroutine ended and returned a value other than ``None``.
    """
    if not isinstance(awaitable, CoroutineType):
        return awaitable
    try:
        return Started(awaitable, awaitable.send(None))
    except StopIteration as ended:
        check_returned(ended.value)
        return None


class Started:
    """The rest of a coroutine that waits; awaiting it runs the coroutine on.

    Args:
        coroutine: The coroutine, after its first step.
        waits_for: The object that its first step yielded.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            while True:
                try:
                    answer = yield self._waits_for
                except BaseException as error:
                    self._waits_for = self._coroutine.throw(error)
                else:
                    self._waits_for = self._coroutine.send(answer)
        except StopIteration as ended:
            return ended.value
