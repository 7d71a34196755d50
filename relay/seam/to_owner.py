"""Messages from the event loop to the owning thread. The rules of the memory model are in `relay.seam`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from relay.decide.rate import Rate
from relay.decide.shared_state import Finding
from relay.seam.entry import Entry

SETTLE_AT = 250  # this number of verdicts is worth a round trip
SOON_S = 0.01  # verdicts wait at most this long for a poll: a crash sends unsettled messages again


class Claim(NamedTuple):
    """A destination's request for a share of its common rate budget.

    Args:
        name: The destination.
        want: How many attempts could start.
        rate: Its limit.
    """

    name: str
    want: int
    rate: Rate


class PermitRequest(Protocol):
    """An attempt that waits until it is noted."""

    def resolve(self, granted: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Note:
    """Records for the owning thread to write, and the attempts that wait for them.

    Args:
        epoch: The session at that time.
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
        is_any_held: Whether some of the requested pairs are under way, or wait to be settled.
    """

    epoch: int
    absent: Collection[tuple[str, str]]
    is_any_held: bool


class ToOwner:
    """The queues from the event loop to the owning thread.

    Args:
        ring: Ends the sleep of the owning thread; the event loop may call it.
        window: Unsettled entries of the relay at most.

    Attributes:
        done: Plain entries that every destination took.
        ruled: Entries with another verdict, in the order of their completion.
        unrouted: Entries that no subscription wants.
        findings: Findings about destinations, for the other relays and for people.
        probes: Destinations that this relay would like to probe, for all relays.
        claims: Requests for shares of common rate budgets.
        notes: Notes of the crash guard.
        withdrawn: Answers to `Delivery.withdraw`.
        is_asleep: Whether the owning thread sleeps; `wake` does nothing otherwise.
    """

    def __init__(self, ring: Callable[[], None], *, window: int) -> None:
        self.done: deque[Entry] = deque()
        self.ruled: deque[Entry] = deque()
        self.unrouted: deque[Entry] = deque()
        self.findings: deque[Finding] = deque()
        self.probes: deque[str] = deque()
        self.claims: deque[Claim] = deque()
        self.notes: deque[Note] = deque()
        self.withdrawn: deque[Withdrawn] = deque()
        self._ring = ring
        self._settle_at = min(SETTLE_AT, max(window // 4, 1))
        self.is_asleep = self._sleeps_long = False

    # ---------------------------------------------------- by the event loop

    def report(self, finding: Finding) -> None:
        """Have a finding written, for the other relays and for people."""
        self.findings.append(finding)
        self.wake()

    def ask_to_probe(self, name: str) -> None:
        """Ask whether this relay may probe a destination; `Delivery.answer_probe` is the answer."""
        self.probes.append(name)
        self.wake()

    def claim(self, claim: Claim) -> None:
        """Ask for a share of a budget; `Delivery.answer_claim` is the answer."""
        self.claims.append(claim)
        self.wake()

    def note(self, note: Note) -> None:
        """Have a note written; `Delivery.written` confirms it."""
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
        """Whether to settle before the next short poll: an attempt waits for it, or there are many verdicts."""
        return bool(self.notes) or len(self.done) + len(self.ruled) >= self._settle_at

    @property
    def _has_work(self) -> bool:
        return bool(self.done or self.ruled or self.unrouted or self.findings or self.probes or self.claims)


def front(queue: deque[Entry], count: int) -> list[Entry]:
    """Return the first `count` entries of a queue, which keeps them.

    The copy is one operation of the interpreter; an iterator would break when the event loop appends.
    """
    return list(queue)[:count]
