"""A coroutine's first step."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any


class Started:
    """A coroutine that has run until it waits for something, or to its end; awaiting it runs the rest.

    What never waits needs no deadline, and entering `asyncio.timeout` costs more than calling many a listener.

    Args:
        coroutine: Run here, in the task that will await it; what it raises before it waits is raised here.

    Attributes:
        has_ended: Whether there is no rest.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.has_ended = False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration:
            self.has_ended = True

    def __await__(self) -> Generator[Any, Any, None]:
        while not self.has_ended:
            try:
                answer = yield self._waits_for
            except BaseException as error:
                self._step(self._coroutine.throw, error)
            else:
                self._step(self._coroutine.send, answer)

    def _step(self, resume: Any, value: Any) -> None:
        try:
            self._waits_for = resume(value)
        except StopIteration:
            self.has_ended = True
