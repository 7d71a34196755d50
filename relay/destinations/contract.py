"""The interface of a destination, which takes one message and returns the outcome as a value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from relay.decide.outcome import Outcome

if TYPE_CHECKING:
    from outbox import Message

BATCH_BYTES = 512 * 1024  # the maximum size of the bodies in a batch; a larger message goes alone


def together(outcomes: Sequence[Outcome]) -> Outcome | Sequence[Outcome]:
    """Return the outcomes of a batch, shortened to one if all were taken or none could get through."""
    first = outcomes[0]
    is_one = first.kind in ("taken", "unreachable") and all(each is first or each == first for each in outcomes)
    return first if is_one else outcomes


class Destination(Protocol):
    """A place to which messages are delivered. Each folder beside this file holds one kind."""

    name: str
    concurrency: int  # attempts at the same time

    async def start(self) -> None:
        """Prepare for sending. A fault in the settings is reported here at the latest."""

    async def send(self, message: Message) -> Outcome:
        """Make one attempt. A failure outside of this process is an outcome, not an exception.

        The message is made for this attempt: no other attempt sees what is changed in it.
        """

    async def close(self) -> None:
        """Close the connections."""


@runtime_checkable
class InProcess(Destination, Protocol):
    """A destination that runs the user's code in this process.

    Such code can hold all threads, or block the event loop. Then the process ends itself, and its log names the code.
    """

    label: str  # the name of the code in logs
    listener: Callable[..., Any]  # the callable that appears on the event loop's stack

    @property
    def held_s(self) -> float:
        """Return how long overrunning attempts have held all threads, in seconds; 0 while a call can run."""


@runtime_checkable
class BatchDestination(Destination, Protocol):
    """A destination that can also take several messages at once.

    Only a healthy destination gets batches: a relay that suspects or probes it sends one message at a time.
    """

    batch_size: int  # the maximum number of messages in one attempt; 1: no batches

    def may_share(self, message: Message) -> bool:
        """Return whether this message may go in a batch."""

    async def send_many(self, messages: Sequence[Message]) -> Outcome | Sequence[Outcome]:
        """Make one attempt with several messages.

        Returns one outcome for all messages, or a sequence with one outcome for each message, in their order.

        One outcome means all or nothing: *taken* means that every message was taken. An outcome for which no message is
        at fault (unreachable, throttled, gone) holds for all messages. After any other outcome the messages are sent
        one by one, so one bad message never affects the rest. An outcome in a sequence holds for its message alone.

        No two messages of a batch have the same ordering key. A message whose answer was lost is sent again with the
        same id.
        """


class Batching(ABC):
    """A destination that sends every message in a batch, which may be a batch of one.

    Args:
        name: The destination's name.
        concurrency: Batches at the same time.
        batch_size: The maximum number of messages in one batch.
    """

    def __init__(self, name: str, *, concurrency: int, batch_size: int) -> None:
        self.name, self.concurrency, self.batch_size = name, concurrency, batch_size

    async def start(self) -> None:  # noqa: B027 (few kinds need it)
        """Do nothing: a connection is opened when it is first used."""

    def may_share(self, message: Message) -> bool:
        return True

    async def send(self, message: Message) -> Outcome:
        (outcome,) = await self.outcomes([message])
        return outcome

    async def send_many(self, messages: Sequence[Message]) -> Outcome | Sequence[Outcome]:
        return together(await self.outcomes(messages))

    @abstractmethod
    async def outcomes(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Make one attempt with all messages; return an outcome for each."""
