"""A coroutine's first step, and the rest of it."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from types import CoroutineType
from typing import Any

from relay.destinations.listener.returned import check_returned


def start(awaitable: Awaitable[Any]) -> Awaitable[Any] | None:
    """Run a coroutine until it waits for something, or to its end; then there is no rest.

    What never waits needs no deadline, and entering `asyncio.timeout` costs more than calling many a listener.

    Args:
        awaitable: A coroutine is run here, in the task that will await its rest; what it raises before it waits is
            raised here. Anything else is all rest.

    Raises:
        ReturnedSomething: The coroutine came to its end and returned something else than ``None``.
    """
    if not isinstance(awaitable, CoroutineType):
        return awaitable
    try:
        return Rest(awaitable, awaitable.send(None))
    except StopIteration as ended:
        check_returned(ended.value)
        return None


class Rest:
    """What is left of a coroutine that waits for something; awaiting it runs that.

    Args:
        coroutine: It has taken its first step.
        waits_for: What it yielded then.
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
