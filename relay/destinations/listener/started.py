"""Run a coroutine's first step, and separate the rest.

A `GeneratorExit` that comes out of a step, and was not thrown into it, was raised by the listener's own code. It
becomes a `ListenerError`: otherwise the task that awaits the coroutine would take it for its own end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from types import CoroutineType
from typing import Any

from relay.destinations.listener.errors import ListenerError, how_it_raised
from relay.destinations.listener.returned import check_returned


def start(awaitable: Awaitable[Any]) -> Awaitable[Any] | None:
    """Run a coroutine until it waits or ends; return the rest, or ``None`` if it ended.

    A coroutine that never waits needs no deadline, and to begin a deadline costs more than to call several listeners.

    Args:
        awaitable: A coroutine is run here, in the task that will await its rest; an error that it raises before it
            waits is raised here. Any other awaitable is returned unchanged.

    Raises:
        ListenerError: The coroutine's own code raised a `GeneratorExit`.
        ReturnedSomething: The coroutine ended and returned a value other than ``None``.
    """
    if not isinstance(awaitable, CoroutineType):
        return awaitable
    try:
        return Started(awaitable, awaitable.send(None))
    except StopIteration as ended:
        check_returned(ended.value)
        return None
    except GeneratorExit as error:
        raise ListenerError(how_it_raised(error)) from error


class Started:
    """The rest of a coroutine that waits; awaiting it continues the coroutine.

    Args:
        coroutine: The coroutine, after its first step.
        waits_for: The object that its first step yielded.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        is_closed = False
        try:
            while True:
                try:
                    answer = yield self._waits_for
                except BaseException as error:
                    is_closed = isinstance(error, GeneratorExit)
                    self._waits_for = self._coroutine.throw(error)
                else:
                    self._waits_for = self._coroutine.send(answer)
        except StopIteration as ended:
            return ended.value
        except GeneratorExit as error:
            if is_closed:
                raise
            raise ListenerError(how_it_raised(error)) from error
