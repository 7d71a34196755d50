"""The answers that have not arrived yet, with or without a waiting attempt.

An attempt that has run out of time leaves its message under way: the broker may have it, or may get it later. A new
attempt at the message waits for the answer that is due, instead of publishing the message again. An answer that arrives
while no attempt waits is kept for a minute, for the next attempt. So an outage that holds up many messages causes no
duplicates. To keep an answer longer would be wrong: by then another relay may own the message, or an operator may have
replayed it, and it must be published again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Generic, TypeVar

LATE_S = 60.0

T = TypeVar("T")


class Due(Generic[T]):
    """Message id → its answer: a future, which belongs to one message or is shared by several."""

    def __init__(self) -> None:
        self._answers: dict[str, asyncio.Future[T]] = {}

    def __iter__(self) -> Iterator[asyncio.Future[T]]:
        return iter(set(self._answers.values()))

    def get(self, id_: str) -> asyncio.Future[T] | None:
        """Return the answer for a message, if one is due or has come late."""
        return self._answers.get(id_)

    def add(self, ids: Iterable[str], answer: asyncio.Future[T]) -> None:
        """Expect an answer for these messages."""
        self._answers |= dict.fromkeys(ids, answer)

    def let_go(self, ids: Iterable[str]) -> None:
        """Note that no attempt at these messages waits any more: forget their answers, or keep them when they come."""
        for id_ in ids:
            answer = self._answers.get(id_)
            if answer is None:
                continue
            if answer.done():
                del self._answers[id_]
            else:
                answer.add_done_callback(partial(self._keep_a_while, id_))

    def _keep_a_while(self, id_: str, answer: asyncio.Future[T]) -> None:
        if answer.cancelled() or answer.exception() is not None:  # retrieved here: asyncio would log it
            self._forget(id_, answer)
        else:
            asyncio.get_running_loop().call_later(LATE_S, self._forget, id_, answer)

    def _forget(self, id_: str, answer: asyncio.Future[T]) -> None:
        if self._answers.get(id_) is answer:
            del self._answers[id_]
