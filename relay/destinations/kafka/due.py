"""The publishes that are not answered yet, with or without a waiting attempt.

A new attempt at a message waits for the answer that is due. An answer that arrives while no attempt waits is kept for a
minute, for the next attempt. Longer would be wrong: by then another relay may own the message, or an operator may have
replayed it, so that it must be published again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from relay.decide.outcome import Outcome, unanswered, unreachable
from relay.observe.logging import one_line

LATE_S = 60.0

Publishing = asyncio.Task[dict[str, Outcome]]


class Due:
    """Message id → the task whose result contains its outcome."""

    def __init__(self) -> None:
        self._tasks: dict[str, Publishing] = {}

    def has(self, id_: str) -> bool:
        """Return whether an answer for this message is due, or came late."""
        return id_ in self._tasks

    def add(self, ids: Iterable[str], task: Publishing) -> None:
        """Expect the answers for these messages from a task."""
        ids = list(ids)
        self._tasks |= dict.fromkeys(ids, task)
        task.add_done_callback(lambda done: self._forget_later(ids, done))

    async def outcomes(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Wait for the answers for these messages, and return them."""
        tasks = {self._tasks[id_] for id_ in ids}
        if tasks:
            await asyncio.wait(tasks)
        return self.known(ids)

    def known(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return the answers for these messages that have arrived."""
        found = {}
        for id_ in ids:
            task = self._tasks.get(id_)
            if task is not None and task.done():
                found[id_] = _result(task, id_)
                del self._tasks[id_]
        return found

    async def settled(self, timeout_s: float) -> None:
        """Wait until everything that is due now is answered, at most this long."""
        here = asyncio.current_task()
        tasks = {task for task in self._tasks.values() if task is not here}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def close(self) -> None:
        """Forget all expected answers."""
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_later(self, ids: Sequence[str], task: Publishing) -> None:
        if not task.cancelled():
            task.exception()  # otherwise asyncio logs it as never retrieved
        asyncio.get_running_loop().call_later(LATE_S, self._forget, ids, task)

    def _forget(self, ids: Sequence[str], task: Publishing) -> None:
        for id_ in ids:
            if self._tasks.get(id_) is task:
                del self._tasks[id_]


def _result(task: Publishing, id_: str) -> Outcome:
    if task.cancelled():
        return unreachable("the destination was closed")
    if (error := task.exception()) is not None:
        return unanswered(one_line(str(error)) or type(error).__name__)
    return task.result()[id_]
