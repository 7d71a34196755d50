"""A window for tests: who looks is told what is emitted and when it is written. Nobody looks in production."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import sqlalchemy as sa

from outbox.draft import Prepared
from outbox.message import Message


class Observer(Protocol):
    """Is told about every message of this process, whichever session or connection it goes through."""

    def emitted(self, messages: Sequence[Prepared], waits: Callable[[str], bool]) -> None:
        """Note that a session accepted messages; ``waits`` tells by its id whether one is still to be written."""

    def written(self, messages: Sequence[Prepared], connection: sa.Connection) -> None:
        """Messages are part of the connection's transaction, accepted by a session before or straight away."""


observers: list[Observer] = []


class Watcher(Protocol):
    """Is told what came of each call of a listener in this process."""

    def __call__(self, destination: str, message: Message, reason: str | None) -> None:
        """Note why the listener did not take the message, or with ``None`` that it did."""


watchers: list[Watcher] = []
