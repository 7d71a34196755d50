"""What tests of a broker's kind send, and sends that are repeated.

Where a test sets a short timeout, a busy machine holds up attempts for longer than that.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from outbox import Message
from outbox.checks.ids import new_id
from outbox.testing.destination_contract import World, each_of
from relay.decide.outcome import Outcome
from relay.destinations.policy import DestinationPolicy
from support.waiting import eventually_async

TYPE = "extraction.completed"
WITHIN_S = 30


def message(type: str = TYPE, data: str = '{"contentId": "c-1"}', **more: Any) -> Message:
    attributes = {"subject": None, "ordering_key": None, "headers": {}, "created_at": "2026-01-01 10:00:00+00", **more}
    return Message(id=new_id(), type=type, source="outbox", body=data, **attributes)


def settings_of(kind: str, **table: Any) -> DestinationPolicy:
    return _world(kind, **table).settings


def destination(kind: str, **table: Any) -> AbstractAsyncContextManager[Any]:
    """Return a context with the destination of these settings, started, under the name ``tested``."""
    return _world(kind, **table).destination()


def _world(kind: str, **table: Any) -> World:
    return World({"kind": kind, "timeout_s": 20, **table}, taken=list)


async def sent_until(made: Any, wanted: Callable[[Outcome], bool], what: Message) -> Outcome:
    """Send a message until the outcome is the wanted one, and return that."""

    async def try_again() -> Outcome | None:
        outcome: Outcome = await made.send(what)
        return outcome if wanted(outcome) else None

    return await eventually_async(try_again, deadline_s=WITHIN_S, what="the outcome that was waited for")


async def sent_until_taken(made: Any, *messages: Message) -> None:
    """Send messages together until each is taken."""
    left: Sequence[Message] = messages

    async def are_taken() -> bool:
        nonlocal left
        outcomes = each_of(await made.send_many(left), left)
        left = [each for each, outcome in zip(left, outcomes, strict=True) if outcome.kind != "taken"]
        return not left

    await eventually_async(are_taken, deadline_s=WITHIN_S, what="all are taken")
