"""The other side of a destination under test, and the functions that the promises need to look at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from outbox.checks.ids import new_id
from outbox.message import Message

if TYPE_CHECKING:
    from relay.decide.outcome import Outcome
    from relay.destinations.contract import Destination
    from relay.destinations.policy import DestinationPolicy

AGAIN_S = 0.05  # between two checks of a condition
OUTAGE = ("unreachable", "unanswered", "throttled")


class Taken(NamedTuple):
    """A message that has arrived.

    Args:
        id: Its id, as the receiver can see it.
        body: Its data, as JSON in bytes.
    """

    id: str
    body: bytes


@dataclass(frozen=True)
class World:
    """The other side of a destination under test. Its functions are called in a thread, so they may block.

    Args:
        table: The destination's table, as in ``outbox.toml``.
        taken: Returns everything that has arrived, in the order of arrival.
        away: Keeps the other side unreachable while the context is open. ``None``: it is always reachable, and the
            promises about outages are skipped.
    """

    table: Mapping[str, Any]
    taken: Callable[[], Sequence[Taken]]
    away: Callable[[], AbstractContextManager[object]] | None = None

    @property
    def settings(self) -> DestinationPolicy:
        """Return the table as a relay parses it."""
        from relay.settings import Settings

        return Settings.model_validate({"destinations": {"tested": dict(self.table)}}).destinations["tested"]

    @asynccontextmanager
    async def destination(self) -> AsyncIterator[Destination]:
        """Yield the destination, started; close it afterwards."""
        made = self.build()
        await made.start()
        try:
            yield made
        finally:
            await made.close()

    def build(self) -> Destination:
        """Make the destination as a relay makes it."""
        from relay.databases.database import Database
        from relay.destinations.registry import build

        return build("tested", self.settings, Database.parse("sqlite:///never-opened.db"))

    async def arrived(self, messages: Sequence[Message]) -> list[Taken]:
        """Wait until all messages have arrived; return everything that has arrived."""
        wanted = {message.id for message in messages}
        while True:
            found = list(await asyncio.to_thread(self.taken))
            if wanted <= {each.id for each in found}:
                return found
            await asyncio.sleep(AGAIN_S)


def message(data: Any = None, *, key: str | None = None, headers: Mapping[str, str] | None = None) -> Message:
    """Make a message like those that a relay sends."""
    id_ = str(new_id())
    body = json.dumps({"contentId": id_} if data is None else data)
    return Message(id_, "extraction.completed", "outbox", key, key, body, dict(headers or {}), "2026-01-01 10:00:00+00")


def assert_taken(outcome: Outcome) -> None:
    assert outcome.kind == "taken", f"not taken, but {outcome}"


def assert_outage(outcome: Outcome, world: World) -> None:
    """Assert that the outcome charges no message, and gives its reason in one line without a secret."""
    assert outcome.kind in OUTAGE, f"an outage is {' or '.join(OUTAGE)}, and this was {outcome}"
    assert outcome.reason
    assert "\n" not in outcome.reason, outcome.reason
    shown = outcome.reason + outcome.detail
    assert not [secret for secret in world.settings.secrets() if secret in shown], "a secret shows in a reason"


def each_of(outcome: Outcome | Sequence[Outcome], messages: Sequence[Message]) -> list[Outcome]:
    """Return the outcome of each message of a batch."""
    if not isinstance(outcome, Sequence):
        return [outcome] * len(messages)
    assert len(outcome) == len(messages), f"{len(outcome)} outcomes for {len(messages)} messages"
    return list(outcome)


@asynccontextmanager
async def away(world: World) -> AsyncIterator[None]:
    """Keep the other side unreachable while this context is open."""
    assert world.away is not None
    gone = world.away()
    await asyncio.to_thread(gone.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(gone.__exit__, None, None, None)


async def until(attempt: Callable[[], Awaitable[Outcome]], is_so: Callable[[Outcome], bool]) -> None:
    """Repeat an attempt until its outcome satisfies ``is_so``."""
    while True:
        if is_so(await attempt()):
            return
        await asyncio.sleep(AGAIN_S)
