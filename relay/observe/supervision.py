"""No task ends unnoticed: when one that should live as long as the relay ends by an error, the relay ends in order.

A worker that dies takes a part of its destination's rate with it, and what it had in hand; asyncio would say so when
the object is collected, if ever. A callback on the loop that fails leaves half of its work undone. Neither can be
repaired from inside, so the relay says what happened, hands back what it owns, and leaves the restart to its
supervisor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVarTuple

import structlog

log = structlog.get_logger("relay")

Arguments = TypeVarTuple("Arguments")


class Supervisor:
    """Watches the tasks and callbacks that must not fail.

    Args:
        on_failure: Called once, on the loop, with the error of the first that fails.
    """

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._on_failure = on_failure
        self._has_failed = False

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that is to live until it is cancelled, or has come to its end."""
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._check)
        return task

    def call(self, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Call a function, on the loop, that must not fail."""
        try:
            function(*arguments)
        except Exception as error:
            self._fail(getattr(function, "__qualname__", repr(function)), error)

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(task.get_name(), error)

    def _fail(self, name: str, error: BaseException) -> None:
        log.critical("task_failed", task=name, exc_info=error)
        if not self._has_failed:
            self._has_failed = True
            self._on_failure(error)
