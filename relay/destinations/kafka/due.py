"""The publishes that are not answered yet, with or without a waiting attempt.

A new attempt at a message waits for the answer that is due. An answer that arrives while no attempt waits is kept for a
minute, for the next attempt. Longer would be wrong: by then another relay may own the message, or an operator may have
replayed it, so that it must be published again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from relay.decide.outcome import Outcome, unanswered, unreachable
from relay.observe.logging import one_line

LATE_S = 60.0

Publishing = asyncio.Task[dict[str, Outcome]]


class _Turn:
    """A group of messages that are answered together.

    Args:
        task: Its result has their outcomes.
        open_count: How many of its answers have not been returned yet.
    """

    __slots__ = ("forgetting", "open_count", "task")

    def __init__(self, task: Publishing, open_count: int) -> None:
        self.task = task
        self.open_count = open_count
        self.forgetting: asyncio.TimerHandle | None = None

    def hand_out(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return the outcomes of some messages; after the last one the turn need not be remembered."""
        self.open_count -= len(ids)
        if self.open_count == 0 and self.forgetting is not None:
            self.forgetting.cancel()
        return _results(self.task, ids)


class Due:
    """Message id → the turn that it was published in."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def has(self, id_: str) -> bool:
        """Return whether an answer for this message is due, or came late."""
        return id_ in self._turns

    def add(self, ids: Sequence[str], task: Publishing) -> None:
        """Expect the answers for these messages from a task."""
        turn = _Turn(task, len(ids))
        self._turns |= dict.fromkeys(ids, turn)
        task.add_done_callback(lambda _: self._forget_later(ids, turn))

    async def outcomes(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Wait for the answers for these messages, and return them."""
        tasks = {turn.task for turn in set(map(self._turns.__getitem__, ids))}
        if tasks:
            await asyncio.wait(tasks)
        return self.known(ids)

    def known(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return the answers for these messages that have arrived."""
        asked: dict[_Turn, list[str]] = defaultdict(list)
        for id_ in ids:
            if (turn := self._turns.get(id_)) is not None:
                asked[turn].append(id_)
        found: dict[str, Outcome] = {}
        for turn, together in asked.items():
            if turn.task.done():
                for id_ in together:
                    self._turns.pop(id_, None)
                found |= turn.hand_out(together)
        return found

    async def settled(self, timeout_s: float) -> None:
        """Wait until everything that is due now is answered, at most this long."""
        here = asyncio.current_task()
        tasks = {turn.task for turn in self._turns.values() if turn.task is not here}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def close(self) -> None:
        """Forget all expected answers."""
        tasks = {turn.task for turn in self._turns.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_later(self, ids: Sequence[str], turn: _Turn) -> None:
        if not turn.task.cancelled():
            turn.task.exception()  # otherwise asyncio logs it as never retrieved
        if turn.open_count:
            turn.forgetting = asyncio.get_running_loop().call_later(LATE_S, self._forget, ids, turn)

    def _forget(self, ids: Sequence[str], turn: _Turn) -> None:
        for id_ in ids:
            if self._turns.get(id_) is turn:
                del self._turns[id_]


def _results(task: Publishing, ids: Sequence[str]) -> dict[str, Outcome]:
    if task.cancelled():
        return dict.fromkeys(ids, unreachable("the destination was closed"))
    if (error := task.exception()) is not None:
        return dict.fromkeys(ids, unanswered(one_line(str(error)) or type(error).__name__))
    outcomes = task.result()
    return {id_: outcomes[id_] for id_ in ids}
