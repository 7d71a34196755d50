"""Deliveries that failed, until it is clear whether the message or the destination was at fault.

A suspect waits until the result of another delivery decides about it, or until its own backoff has passed. Then it is
tried again, and its earlier failure is still remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Generic, Protocol, TypeVar

from relay.decide.backoff import Policy
from relay.decide.outcome import Outcome
from relay.decide.retry import charge
from relay.decide.verdict import Verdict

PROBE_EVERY_S = 30.0  # the longest wait between probes of a destination, or attempts at a suspect
ONLY_FROM_THE_LIVING = ("failed", "refused")


class Delivery(Protocol):
    """A delivery, as the breaker needs it. It is compared and hashed by identity."""

    id: str  # of the message
    attempts: int  # charged so far
    failing_for_s: float  # since its first charged failure


D = TypeVar("D", bound=Delivery)
Ruling = list[tuple[D, Verdict | None]]  # None: released uncharged, to be tried again


@dataclass(slots=True)
class Suspect(Generic[D]):
    """A delivery that failed and was not ruled on yet.

    Args:
        delivery: The delivery.
        outcome: How it failed.
        failed_at: When it failed.
        failures: Failures in a row that were not charged; its own backoff grows with them.
        retry_at: When it is tried again, if no other delivery decides about it before then.
    """

    delivery: D
    outcome: Outcome
    failed_at: float
    failures: int
    retry_at: float

    @property
    def was_answered(self) -> bool:
        """Whether only a living destination can have caused this failure."""
        return self.outcome.kind in ONLY_FROM_THE_LIVING


@dataclass(slots=True)
class Suspects(Generic[D]):
    """The suspects of one destination, and the evidence against them.

    Args:
        policy: How patient the destination's deliveries are.

    Attributes:
        waiting: The suspects that wait for evidence, or for their own backoff.
        retried: The suspects that are being tried again and are not ruled on.
        evidence_at: The start of the latest attempt that was taken and is evidence against other deliveries.
    """

    policy: Policy
    waiting: dict[D, Suspect[D]] = field(default_factory=dict)
    retried: dict[D, Suspect[D]] = field(default_factory=dict)
    evidence_at: float = -inf

    def __len__(self) -> int:
        return len(self.waiting) + len(self.retried)

    def __iter__(self) -> Iterator[Suspect[D]]:
        yield from self.waiting.values()
        yield from self.retried.values()

    @property
    def next_retry_at(self) -> float:
        """When to rule on the next waiting suspect, if nothing happens before then."""
        return min((s.retry_at for s in self.waiting.values()), default=inf)

    def add(self, delivery: D, outcome: Outcome, earlier: Suspect[D] | None, now: float) -> Ruling[D]:
        """Suspect a delivery, or charge it.

        Args:
            delivery: The delivery.
            outcome: How it failed.
            earlier: The suspicion from its previous failure, if there is one.
            now: The time.
        """
        if earlier is not None and self.evidence_at >= earlier.failed_at:
            return [(delivery, charge(delivery, outcome, self.policy))]
        failures = earlier.failures + 1 if earlier is not None else 1
        retry_at = now + min(self.policy.ceiling_s(failures), PROBE_EVERY_S)
        self.waiting[delivery] = Suspect(delivery, outcome, now, failures, retry_at)
        return []

    def clear_up(self, earlier: Suspect[D] | None, started_at: float) -> Ruling[D]:
        """Rule on the suspects that failed before the start of an attempt that was taken.

        Args:
            earlier: The suspicion of the delivery that was taken, if it had failed before: then it was innocent, and
                the other suspects may be, too.
            started_at: The start of its attempt.
        """
        before = [s for s in self.waiting.values() if s.failed_at <= started_at]
        if earlier is not None:
            return self._release(before)
        self.evidence_at = max(self.evidence_at, started_at)
        return self._charge(before)

    @property
    def reason(self) -> str | None:
        """The reason of the latest failure; ``None`` if there is none."""
        latest = max(self, key=lambda s: s.failed_at, default=None)
        return latest.outcome.reason if latest is not None else None

    def rule_alone(self) -> Ruling[D]:
        """Rule on suspects when there is no other delivery, waiting or under way, to compare them with.

        Failures that only a living destination can have caused are charged. The other suspects wait for their own
        backoff.
        """
        return self._charge([s for s in self.waiting.values() if s.was_answered])

    def rule_due(self, now: float) -> Ruling[D]:
        """Rule on the suspects whose own backoff has passed without other evidence."""
        due = [s for s in self.waiting.values() if s.retry_at <= now]
        ruling = self._charge([s for s in due if s.was_answered])
        return ruling + self._release([s for s in due if not s.was_answered])

    def release_all(self) -> Ruling[D]:
        """Release all suspects uncharged, and forget that they failed."""
        released: Ruling[D] = [(delivery, None) for delivery in self.waiting]
        self.waiting.clear()
        self.retried.clear()
        return released

    def forget(self, delivery: D) -> None:
        """Forget a delivery that leaves memory; its failure is not charged."""
        self.waiting.pop(delivery, None)
        self.retried.pop(delivery, None)

    def replace(self, delivery: D, other: D) -> None:
        """Replace the object that represents a delivery which is being tried."""
        if (suspect := self.retried.pop(delivery, None)) is not None:
            suspect.delivery = other
            self.retried[other] = suspect

    def _charge(self, suspects: list[Suspect[D]]) -> Ruling[D]:
        for suspect in suspects:
            del self.waiting[suspect.delivery]
        return [(s.delivery, charge(s.delivery, s.outcome, self.policy)) for s in suspects]

    def _release(self, suspects: list[Suspect[D]]) -> Ruling[D]:
        """Return suspects to be tried again, and remember their failures: their next backoff is longer."""
        for suspect in suspects:
            del self.waiting[suspect.delivery]
            self.retried[suspect.delivery] = suspect
        return [(s.delivery, None) for s in suspects]
