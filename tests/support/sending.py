"""Sends that are repeated: where a test sets a short timeout, a busy machine holds up attempts for longer than that."""

from collections.abc import Callable, Sequence
from typing import Any

from outbox import Message
from outbox.testing.destination_contract import each_of
from relay.decide.outcome import Outcome
from support.waiting import eventually_async

WITHIN_S = 30


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
