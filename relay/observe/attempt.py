"""The messages of one attempt and its outcomes, for a single message or a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from outbox import Message
from relay.decide.outcome import Outcome

Sent = TypeVar("Sent", Message, Sequence[Message])
Outcomes = TypeVar("Outcomes", Outcome, Outcome | Sequence[Outcome])  # one outcome for all messages, or one for each


def messages_of(sent: Message | Sequence[Message]) -> Sequence[Message]:
    """Return the messages of one attempt."""
    return [sent] if isinstance(sent, Message) else sent


def outcomes_of(outcomes: Outcome | Sequence[Outcome]) -> Sequence[Outcome]:
    """Return the outcomes of one attempt."""
    return [outcomes] if isinstance(outcomes, Outcome) else outcomes
