"""Observers of what is emitted and when it is written, for tests. In production there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import sqlalchemy as sa

from outbox.draft import Prepared
from outbox.message import Message


class Observer(Protocol):
    """An observer of every message that this process emits, in any session or connection."""

    def emitted(self, messages: Sequence[Prepared], waits: Callable[[str], bool]) -> None:
        """Note that a session accepted messages; ``waits`` returns by id whether one is still to be written."""

    def written(self, messages: Sequence[Prepared], connection: sa.Connection) -> None:
        """Note that messages were written in the connection's transaction, from a session or directly."""


observers: list[Observer] = []


class Watcher(Protocol):
    """An observer of the result of each call of a listener in this process."""

    def __call__(self, destination: str, message: Message, reason: str | None) -> None:
        """Note why the listener did not take the message; ``None`` means that it did."""


watchers: list[Watcher] = []
