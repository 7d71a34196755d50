"""Mask payload that operators must not read, in logs and reasons, while its message is being sent.

A listener's exception or a receiver's answer may repeat a value of the message. `relay.observe.text.redacted` masks it
in every log line that is written during the attempt, and the outcome is masked before it is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TypeAlias

from outbox import Message
from relay.decide.outcome import TAKEN, Outcome
from relay.observe.attempt import Outcomes, Sent, messages_of, outcomes_of
from relay.observe.text import masked, payload_mask, redacted

ValuesOf: TypeAlias = Callable[[Message], list[str]]  # returns the values of a message that must be masked


def concealing(
    send: Callable[[Sent], Awaitable[Outcomes]], values_of: ValuesOf | None
) -> Callable[[Sent], Awaitable[Outcomes]]:
    """Return a function that sends while the payload is hidden; `send` itself if there is nothing to hide."""
    if values_of is None:
        return send

    async def concealed(sent: Sent) -> Outcomes:
        originals = [message.copy() for message in messages_of(sent)]  # a listener may change the headers
        with _hiding(originals, values_of):
            outcomes = await send(sent)
            hidden = [_concealed(each) for each in outcomes_of(outcomes)]
            return hidden[0] if isinstance(outcomes, Outcome) else hidden

    return concealed


@contextmanager
def _hiding(messages: Sequence[Message], values_of: ValuesOf) -> Iterator[None]:
    @cache
    def values() -> list[str]:
        return [value for message in messages for value in values_of(message)]

    token = payload_mask.set(lambda text: masked(text, values()))
    try:
        yield
    finally:
        payload_mask.reset(token)


def _concealed(outcome: Outcome) -> Outcome:
    if outcome is TAKEN:
        return outcome
    return replace(outcome, reason=redacted(outcome.reason), detail=redacted(outcome.detail))
