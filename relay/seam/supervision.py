"""End the relay in order if one of its permanent tasks ends by an error.

A worker that dies reduces the rate of its destination and keeps its entry. asyncio would report its error only when the
task object is collected. A callback on the loop that fails leaves its work half done. Neither can be repaired from
inside, so the relay logs the error, hands back its shards, and leaves the restart to its supervisor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVarTuple

import structlog

log = structlog.get_logger("relay")

Arguments = TypeVarTuple("Arguments")


class Supervisor:
    """Watches tasks and callbacks that must not fail.

    Args:
        on_failure: Called once, on the loop, with the error of the first task or callback that fails.
    """

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._on_failure = on_failure
        self._has_failed = False

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that runs until it is cancelled or returns."""
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._check)
        return task

    def call(self, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Call a function on the loop that must not fail."""
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
