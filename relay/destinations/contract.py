"""What a destination is: something that takes one message and says, as a value, what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from relay.decide.outcome import Outcome

if TYPE_CHECKING:
    from outbox import Message

BATCH_BYTES = 512 * 1024  # of bodies in one batch; a message that is larger by itself goes alone


def together(outcomes: Sequence[Outcome]) -> Outcome | Sequence[Outcome]:
    """Return the outcomes of a batch in short: one, where all messages were taken or none could get through."""
    first = outcomes[0]
    is_one = first.kind in ("taken", "unreachable") and all(each is first or each == first for each in outcomes)
    return first if is_one else outcomes


class Destination(Protocol):
    """Where messages go. The plural folder around this file holds the kinds."""

    name: str
    concurrency: int  # attempts under way at once

    async def start(self) -> None:
        """Make ready; whatever is wrong with the settings is found here at the latest."""

    async def send(self, message: Message) -> Outcome:
        """One attempt. What the outside world does wrong is an outcome, not an exception."""

    async def close(self) -> None:
        """Let go of connections."""


@runtime_checkable
class InProcess(Destination, Protocol):
    """One that runs code of the user in this process.

    Such code can hold all the threads that it is given, and can keep the event loop from turning. Then the process ends
    itself, and says which code it was.
    """

    label: str  # what a log calls the code
    listener: Callable[..., Any]  # what is found on the event loop's stack

    @property
    def held_s(self) -> float:
        """For how long, in seconds, attempts that overran have held everything up; 0 while something can run."""


@runtime_checkable
class BatchDestination(Destination, Protocol):
    """One that can also take several messages at once.

    Only a destination in good health gets batches: whoever doubts or probes it sends one message at a time.
    """

    batch_size: int  # messages in one attempt at most; 1 for none

    def may_share(self, message: Message) -> bool:
        """Whether this message may go in a batch at all."""

    async def send_many(self, messages: Sequence[Message]) -> Outcome | Sequence[Outcome]:
        """One attempt for all of them.

        Returns one outcome for all, or a sequence with one outcome for each message, in their order.

        One outcome for all means all or nothing: taken means that every one was. What no message is to blame for
        (unreachable, throttled, gone) holds for all of them. After anything else they are sent one by one, so that one
        bad message never condemns its neighbours. An outcome in a sequence holds for its message alone.

        No two messages of a batch have the same ordering key. Messages that were taken and are sent again, because the
        answer was lost, come with the same id.
        """
