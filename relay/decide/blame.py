"""Whose fault was it? The message's, or the destination's?

An outage must cost no message its attempts, and a poison message must cost nobody else a thing. One failure tells
nothing about which of the two it is; what tells is what happens to *another* message afterwards. So whoever fails
becomes a **suspect**, and the destination is **doubted**: one attempt at a time, on other messages, until it is clear.

    healthy ──a failure──► doubted ──it takes another one──► healthy   the suspects are convicted: the attempt is
       ▲                      │                                        charged, a refusal is a dead letter
       │                      ├──five fail, one after the other──► paused   the suspects are absolved, none is charged;
       │                      │                                       │     after each backoff one probe, the oldest and
       │                      │                                       │     the newest in turn
       │                      └──nothing else is left to try──► paused, open   a refusal is a dead letter; a suspect is
       │                                                              │        tried again after each backoff, and
       └─────────────────a probe, or a newcomer, is taken◄────────────┘        newcomers at once: they may clear it up

A connection that cannot be made is no message's fault: paused at once. 429 and Retry-After make everybody wait
(**throttled**); 410 switches the destination **off** until an operator resumes it.

What the relays know together goes through `adopt` and `resume`: see `relay.decide.standing`.

Evidence counts only if the attempt that was taken *started after* the suspect failed: what was already under way when a
destination went down says nothing about its health.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar, cast

from relay.decide.backoff import Policy, clamped
from relay.decide.outcome import Outcome
from relay.decide.standing import Standing
from relay.decide.verdict import DELIVERED, Verdict, dead, retry

Condition = Literal["healthy", "doubted", "paused", "throttled", "off"]

SUSPECTS_MEAN_BROKEN = 5
PROBE_EVERY_S = 30.0  # at least, however long a destination has been down


class Delivery(Protocol):
    """What blame needs to know of a delivery."""

    attempts: int  # charged so far
    failing_for_s: float  # since its first charged failure


D = TypeVar("D", bound=Delivery)
Ruling = list[tuple[D, Verdict | None]]  # None: absolved, back to where it waited


@dataclass(slots=True)
class Suspect(Generic[D]):
    delivery: D
    outcome: Outcome
    failed_at: float


@dataclass(slots=True)
class Blame(Generic[D]):
    """The recent record of one destination, and the rule that reads it. Times are seconds of any one clock."""

    policy: Policy
    condition: Condition = "healthy"
    reason: str = ""
    since: float = 0.0
    until: float = 0.0
    pauses: int = 0
    probing: bool = False
    is_open: bool = False  # paused for want of other evidence: whoever comes is tried at once
    suspects: list[Suspect[D]] = field(default_factory=list)

    def end_wait(self, now: float) -> bool:
        """End the wait that the destination asked for, if its time has come; whether it just has."""
        if self.condition != "throttled" or now < self.until:
            return False
        self._turn("healthy", now)
        return True

    def may_start(self, now: float) -> bool:
        """Whether another attempt may start now."""
        if self.condition == "healthy":
            return True
        if self.condition == "throttled":
            return now >= self.until
        if self.condition == "doubted":
            return not self.probing
        return self.condition == "paused" and not self.probing and (now >= self.until or self.is_open)

    def start(self) -> None:
        """Note that an attempt starts."""
        if self.condition != "healthy":
            self.probing = True

    def withdraw(self) -> None:
        """Note that an attempt that was to start did not."""
        self.probing = False

    def judge(self, delivery: D, outcome: Outcome, started_at: float, now: float) -> Ruling[D]:
        """Rule on a delivery whose attempt has ended, and on every suspect that this clears up."""
        is_probe = self.probing and started_at >= self.since
        self.probing = self.probing and not is_probe
        match outcome.kind:
            case "taken":
                return [(delivery, DELIVERED), *self._convict(started_at, now)]
            case "busy":
                return [(delivery, self._charge(delivery, outcome))]
            case "failed" | "refused":
                return self._suspect(delivery, outcome, now, is_probe=is_probe)
            case "unreachable":
                return self._pause(delivery, outcome, now, is_probe=is_probe)
            case "throttled":
                return self._throttle(delivery, outcome, now)
            case "gone":
                return [(delivery, None), *self._absolve_and_turn("off", now, outcome.reason)]

    def exhausted(self, now: float) -> Ruling[D]:
        """Nothing else is left to try: a refusal is the message's fault, a failure nobody's until there is evidence."""
        if self.condition != "doubted" and not (self.condition == "paused" and self.is_open):
            return []
        refused = [s for s in self.suspects if s.outcome.kind == "refused"]
        self.suspects = [s for s in self.suspects if s.outcome.kind != "refused"]
        if self.suspects:
            self._wait_for_evidence(now)
        else:
            self._turn("healthy", now)
        return [(s.delivery, self._charge(s.delivery, s.outcome)) for s in refused]

    def take_back(self, now: float) -> list[D]:
        """The suspects that may be tried again now, since nobody else has come to clear them up."""
        if not (self.condition == "paused" and self.is_open and now >= self.until):
            return []
        suspects, self.suspects = self.suspects, []
        return [s.delivery for s in suspects]

    def resume(self, now: float) -> Ruling[D]:
        """An operator, or whoever knows better, says that it works again: nobody is under suspicion any more."""
        self.pauses = 0
        return self._absolve_and_turn("healthy", now, "")

    def adopt(self, standing: Standing, now: float) -> Ruling[D]:
        """Other relays found out that the destination takes nothing now: so it is, and nobody here is to blame."""
        if self.condition == "off":
            return []
        absolved = self._absolve_and_turn(cast(Condition, standing.state), now, standing.reason or "")
        self.pauses, self.until = standing.pauses, now + (standing.wait_s or 0.0)
        return absolved

    # ------------------------------------------------------------------ rules

    def _suspect(self, delivery: D, outcome: Outcome, now: float, *, is_probe: bool) -> Ruling[D]:
        if self.condition in ("paused", "off", "throttled") and not self.is_open:
            return self._pause(delivery, outcome, now, is_probe=is_probe)
        self.suspects.append(Suspect(delivery, outcome, now))
        if self.condition == "healthy":
            self._turn("doubted", now, outcome.reason)
        if len(self.suspects) >= SUSPECTS_MEAN_BROKEN:
            return self._pause_for(outcome, now)
        return []

    def _convict(self, started_at: float, now: float) -> Ruling[D]:
        guilty = [s for s in self.suspects if s.failed_at <= started_at]
        self.suspects = [s for s in self.suspects if s.failed_at > started_at]
        if self.condition in ("doubted", "paused") and started_at >= self.since and not self.suspects:
            self.pauses = 0
            self._turn("healthy", now)
        return [(s.delivery, self._charge(s.delivery, s.outcome)) for s in guilty]

    def _charge(self, delivery: D, outcome: Outcome) -> Verdict:
        attempts = delivery.attempts + 1
        if outcome.kind == "refused":
            return dead(outcome.reason, outcome.detail)
        if attempts >= self.policy.max_attempts:
            return dead(f"{outcome.reason} (attempt {attempts} of {self.policy.max_attempts})", outcome.detail)
        if delivery.failing_for_s >= self.policy.give_up_after_s:
            return dead(f"{outcome.reason} (failing for {delivery.failing_for_s:.0f} s)", outcome.detail)
        ceiling = self.policy.ceiling_s(attempts)
        if outcome.retry_after_s is not None:
            ceiling = max(ceiling, clamped(outcome.retry_after_s))
        return retry(ceiling, outcome.reason, outcome.detail)

    def _pause(self, delivery: D, outcome: Outcome, now: float, *, is_probe: bool) -> Ruling[D]:
        """What was under way when it went down tells nothing new: only a probe makes the next wait longer."""
        if self.condition in ("off", "throttled") or (self.condition == "paused" and not is_probe and not self.is_open):
            return [(delivery, None)]
        return [(delivery, None), *self._pause_for(outcome, now)]

    def _throttle(self, delivery: D, outcome: Outcome, now: float) -> Ruling[D]:
        if self.condition == "off":
            return [(delivery, None)]
        absolved = self._absolve_and_turn("throttled", now, outcome.reason)
        self.until = max(self.until, now + clamped(outcome.retry_after_s))
        return [(delivery, None), *absolved]

    def _pause_for(self, outcome: Outcome, now: float) -> Ruling[D]:
        self.pauses += 1
        absolved = self._absolve_and_turn("paused", now, outcome.reason)
        self.until = now + min(self.policy.ceiling_s(self.pauses), PROBE_EVERY_S)
        return absolved

    def _wait_for_evidence(self, now: float) -> None:
        self.pauses += 1
        self._turn("paused", now, self.suspects[-1].outcome.reason)
        self.is_open = True
        self.until = now + min(self.policy.ceiling_s(self.pauses), PROBE_EVERY_S)

    def _absolve_and_turn(self, condition: Condition, now: float, reason: str) -> Ruling[D]:
        absolved: Ruling[D] = [(s.delivery, None) for s in self.suspects]
        self.suspects = []
        self._turn(condition, now, reason)
        return absolved

    def _turn(self, condition: Condition, now: float, reason: str = "") -> None:
        self.condition, self.reason, self.since = condition, reason, now
        self.probing = self.is_open = False
