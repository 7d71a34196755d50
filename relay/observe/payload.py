"""Keep payload that operators must not read out of logs and reasons, while its message is being sent.

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
from relay.observe.text import masked, payload_mask, redacted

ValuesOf: TypeAlias = Callable[[Message], list[str]]  # what is to be masked of a message
Send: TypeAlias = Callable[[Message], Awaitable[Outcome]]
SendMany: TypeAlias = Callable[[Sequence[Message]], Awaitable[Outcome | Sequence[Outcome]]]


def concealing(send: Send, values_of: ValuesOf | None) -> Send:
    """Return a function that sends a message and hides its payload; `send` itself where nothing is to be hidden."""
    if values_of is None:
        return send

    async def concealed(message: Message) -> Outcome:
        with _hiding([message], values_of):
            return _concealed(await send(message))

    return concealed


def concealing_many(send: SendMany, values_of: ValuesOf | None) -> SendMany:
    """Return a function that sends a batch and hides its payload; `send` itself where nothing is to be hidden."""
    if values_of is None:
        return send

    async def concealed(messages: Sequence[Message]) -> Outcome | Sequence[Outcome]:
        with _hiding(messages, values_of):
            outcomes = await send(messages)
            return _concealed(outcomes) if isinstance(outcomes, Outcome) else [_concealed(each) for each in outcomes]

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
