"""Messages from the event loop to the owning thread. The rules of the memory model are in `relay.seam`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relay.decide.failures.crashes import Delivery
from relay.decide.rate import Rate
from relay.decide.shared_state import Finding
from relay.seam.entry import Entry

SETTLE_AT = 250  # from this number on, verdicts are worth a round trip
SOON_S = 0.01  # verdicts wait at most this long for a poll: a crash sends unsettled messages again


class Probe(NamedTuple):
    """A request to probe a destination, for all relays; `Delivery.answer_probe` is the answer.

    Args:
        name: The destination.
    """

    name: str


class Claim(NamedTuple):
    """A destination's request for a share of its common rate budget; `Delivery.answer_claim` is the answer.

    Args:
        name: The destination.
        want: How many attempts could start.
        rate: Its limit.
    """

    name: str
    want: int
    rate: Rate


@dataclass(eq=False, slots=True)
class PermitRequest:
    """A worker's request to begin an attempt, answered when the attempt is noted in the table."""

    delivery: Delivery
    shard: int
    answer: asyncio.Future[bool]

    def resolve(self, granted: bool) -> None:
        """Answer the request, unless it was answered before. Called by the event loop."""
        if not self.answer.done():
            self.answer.set_result(granted)


@dataclass(frozen=True, slots=True)
class Note:
    """Records for the owning thread to write, and the attempts that wait for them.

    Args:
        epoch: The number of the session in which the note was made.
        records: Shard → its new record; ``None`` clears it.
        requests: The attempts that may start when the records are written.
    """

    epoch: int
    records: Mapping[int, str | None]
    requests: Sequence[PermitRequest]


class Withdrawn(NamedTuple):
    """The answer to `Delivery.withdraw`.

    Args:
        epoch: The session that asked.
        absent: (message, destination) pairs that are not in memory any more: they can be finished.
        held: The other requested pairs, which are under way or wait to be settled.
    """

    epoch: int
    absent: Collection[Delivery]
    held: Collection[Delivery]


class ToOwner:
    """The queues from the event loop to the owning thread.

    Args:
        ring: Ends the sleep of the owning thread. The event loop may call it.
        window: The most unsettled entries that the relay may hold.

    Attributes:
        done: Plain entries that every destination took.
        ruled: Entries with another verdict, in the order of their completion.
        unrouted: Entries that no subscription wants.
        requests: Findings to write for the other relays and for people, and probes and shares of budgets to claim.
        notes: Notes of the crash guard.
        withdrawn: Answers to `Delivery.withdraw`.
        is_asleep: Whether the owning thread sleeps; `wake` does nothing otherwise.
    """

    def __init__(self, ring: Callable[[], None], *, window: int) -> None:
        self.done: deque[Entry] = deque()
        self.ruled: deque[Entry] = deque()
        self.unrouted: deque[Entry] = deque()
        self.requests: deque[Finding | Probe | Claim] = deque()
        self.notes: deque[Note] = deque()
        self.withdrawn: deque[Withdrawn] = deque()
        self._ring = ring
        self._settle_at = min(SETTLE_AT, max(window // 4, 1))
        self.is_asleep = self._sleeps_long = False

    # ---------------------------------------------------- by the event loop

    def request(self, request: Finding | Probe | Claim) -> None:
        """Have a finding written, or ask for a probe or a share of a budget."""
        self.requests.append(request)
        self.wake()

    def note(self, note: Note) -> None:
        """Have a note written; `Crashes.written` confirms it."""
        self.notes.append(note)
        self.wake()

    def wake(self) -> None:
        """Wake the owning thread if there is enough to settle.

        A few verdicts wait for the next short poll: a round trip for each would cost more than sending the message.
        """
        if self.is_asleep and (self._sleeps_long or self.wants_settling):
            self.is_asleep = False
            self._ring()

    # -------------------------------------------------- by the owning thread

    def fall_asleep(self, timeout_s: float) -> bool:
        """Announce that the owning thread will sleep; return false if there is work to do first."""
        self._sleeps_long = timeout_s > SOON_S
        self.is_asleep = True
        if self.wants_settling or (self._sleeps_long and self._has_work):
            self.is_asleep = False
        return self.is_asleep

    def wake_up(self) -> None:
        """Announce that the owning thread does not sleep any more."""
        self.is_asleep = False

    # ---------------------------------------------------------------- by both

    @property
    def wants_settling(self) -> bool:
        """Whether to settle before the next short poll, because an attempt waits for it or there are many verdicts."""
        return bool(self.notes) or len(self.done) + len(self.ruled) >= self._settle_at

    @property
    def _has_work(self) -> bool:
        return bool(self.done or self.ruled or self.unrouted or self.requests)


def front(queue: deque[Entry], count: int) -> list[Entry]:
    """Return the first `count` entries of a queue, which keeps them.

    The copy is one operation of the interpreter; an iterator would break when the event loop appends.
    """
    return list(queue)[:count]
