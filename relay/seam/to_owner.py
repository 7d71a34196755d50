"""What the event loop tells the owning thread. The rules of the memory model are in `relay.seam`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from relay.decide.rate import Rate
from relay.decide.standing import Finding
from relay.seam.entry import Entry

SETTLE_AT = 250  # verdicts that are worth a round trip of their own
SOON_S = 0.01  # verdicts may wait for a poll that comes so soon; what is not settled is sent again after a crash


class Claim(NamedTuple):
    """A destination's request for a share of the budget that all relays have in common.

    Args:
        name: The destination.
        want: How many attempts could start.
        rate: Its limit.
    """

    name: str
    want: int
    rate: Rate


class PermitRequest(Protocol):
    """An attempt that waits until it is on record."""

    def resolve(self, granted: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Note:
    """What the crash guard has the owning thread write, and which attempts wait for that.

    Args:
        epoch: The session that owned when it was made.
        records: Shard → its new record; ``None`` clears it.
        requests: The attempts that may start when it is written.
    """

    epoch: int
    records: Mapping[int, str | None]
    requests: Sequence[PermitRequest]


class Withdrawn(NamedTuple):
    """The answer to `ToLoop.withdraw`.

    Args:
        epoch: The session that asked.
        absent: (message, destination) pairs of which nothing is in memory any more: to be finished now.
        is_any_held: Whether some of those that were asked for are under way, or wait to be settled.
    """

    epoch: int
    absent: Collection[tuple[str, str]]
    is_any_held: bool


class ToOwner:
    """The queues from the event loop to the owning thread.

    Args:
        ring: Ends the sleep of the owning thread; may be called from the event loop.
        window: Entries that the relay holds unsettled at most.

    Attributes:
        done: Plain entries, taken by every destination.
        ruled: Entries with another verdict, in the order of their completion.
        unrouted: Entries that no subscription wants.
        findings: What was found out about destinations, for people and the other relays.
        probes: Destinations that this relay would like to probe, for all relays.
        claims: Requests for shares of the budgets that all relays have in common.
        notes: What the crash guard has written down.
        withdrawn: Answers to `ToLoop.withdraw`.
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
        self._is_asleep = self._sleeps_long = False

    # ---------------------------------------------------- by the event loop

    def report(self, finding: Finding) -> None:
        """Have a finding written where the other relays, and people, look for it."""
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
        """Have a note written; `Delivery.written` says when it is."""
        self.notes.append(note)
        self.wake()

    def wake(self) -> None:
        """Say that there is something to settle. Cheap enough to be called for every message.

        Few verdicts can wait for the next short poll: a round trip for each of them would cost more than the sending.
        """
        if self._is_asleep and (self._sleeps_long or self.wants_settling):
            self._is_asleep = False
            self._ring()

    # -------------------------------------------------- by the owning thread

    def fall_asleep(self, timeout_s: float) -> bool:
        """Say that the owning thread will sleep; false when there is something to do first."""
        self._sleeps_long = timeout_s > SOON_S
        self._is_asleep = True
        if self.wants_settling or (self._sleeps_long and self._has_work):
            self._is_asleep = False
        return self._is_asleep

    def wake_up(self) -> None:
        """Say that the owning thread does not sleep any more."""
        self._is_asleep = False

    # ---------------------------------------------------------------- by both

    @property
    def wants_settling(self) -> bool:
        """Whether to settle now, and not with the next short poll: an attempt waits for it, or it is worth a turn."""
        return bool(self.notes) or len(self.done) + len(self.ruled) >= self._settle_at

    @property
    def _has_work(self) -> bool:
        return bool(self.done or self.ruled or self.unrouted or self.findings or self.probes or self.claims)


def front(queue: deque[Entry], count: int) -> list[Entry]:
    """Return the first `count` entries of a queue, which keeps them.

    The copy is one operation of the interpreter: the event loop may append at any moment, which ends an iterator.
    """
    return list(queue)[:count]
