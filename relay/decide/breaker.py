"""The circuit breaker decides whose fault a failure was: the message's or the destination's.

An outage must cost no message its attempts. A message that always fails must become a dead letter. A destination that
fails a few per cent of its requests must keep its rate. One failure does not show which of the three cases it is. The
results of *other* messages after it show that:

- A message that fails becomes a **suspect**. Other messages go on.
- A suspect is **charged** when another message, whose attempt *started after* the suspect failed, is taken. An attempt
  that was under way before proves nothing: a destination that goes down has always just taken a message.
- A suspect that is tried again and taken was innocent: the destination was at fault. So all other suspects are released
  uncharged, and tried again at once.
- In doubt, fewer attempts may be under way, and at least one: the **width** is ``concurrency >> streak``, at least 1.
  The streak counts the different messages that failed since the last one was taken. One success restores the full
  width.
- The breaker **opens** when chance cannot explain the streak: the destination is down (`failures.failure_rate`).
  All suspects are released uncharged. The destination is **probed** after 1 s, 2 s, 4 s, and at least every 30 s. A
  probe is up to eight attempts at different messages, one after the other; the first one that is taken closes the
  breaker. From then on the width doubles with each success.
- While three or more different messages have failed in a row, while the breaker is open and while the width grows
  again, three of four attempts use messages unlike those that failed (`failures.doubt`). Therefore a crowd of bad
  messages neither opens the breaker again nor hides that the destination takes other messages.
- A suspect without a message to compare it with is tried again after its own backoff, uncharged, and the breaker stays
  closed. But a failure that only a living destination can have caused (`failed`, `refused`) is charged even then.

    closed ──the streak is improbable──► open ──a probe is taken──► closed
       │                                  └──a probe fails──► open, and the next wait is longer
       ├──429, or Retry-After──► throttled ──that time has passed──► closed
       └──410──► off, until an operator resumes it

docs/decisions/0004 has the arithmetic and the rejected alternatives. `adopt` and `resume` apply the shared state of a
destination: see `relay.decide.shared_state`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Generic, Literal

from relay.decide.backoff import Policy, clamped
from relay.decide.failures.failure_rate import FailureRate
from relay.decide.failures.suspects import PROBE_EVERY_S, D, Ruling, Suspect, Suspects
from relay.decide.outcome import Outcome
from relay.decide.retry import charge
from relay.decide.shared_state import SharedState
from relay.decide.verdict import DELIVERED

Condition = Literal["closed", "open", "throttled", "off"]

FULL_WIDTH = 1000  # the largest concurrency that may be configured
PROBE_WITH = 8  # the most different messages in one probe, one after the other
PROBE_S = 5.0  # after this time, a probe uses no further message
DOUBTED = 3  # after this number of different messages failed in a row, not only the oldest is tried
CONDITION_OF_STATE: dict[str, Condition] = {"paused": "open", "throttled": "throttled", "off": "off"}


@dataclass(slots=True)
class CircuitBreaker(Generic[D]):
    """The circuit breaker of one destination. Times are seconds of one clock.

    Args:
        policy: The limits and the backoff of the destination's deliveries.

    Attributes:
        condition: ``closed``, ``open``, ``throttled`` or ``off``; see the module.
        reason: Why it is not closed.
        since: When the condition began.
        until: When an open breaker is probed, or a throttled one closes.
        pauses: Openings and failed probes in a row; the waits between probes grow with them.
        probing: Whether a probe is under way.
        is_clear: Whether there is neither a suspect nor a doubt. Then a taken message needs no ruling, and is only
            counted in `rate`. It is an attribute, not a property, because it is read twice for each message.
        suspects: The deliveries that failed and were not ruled on.
    """

    policy: Policy
    condition: Condition = "closed"
    reason: str = ""
    since: float = 0.0
    until: float = 0.0
    pauses: int = 0
    probing: bool = False
    is_clear: bool = True
    rate: FailureRate = field(default_factory=FailureRate)
    _streak: set[str] = field(default_factory=set)  # messages
    _failures: int = 0  # attempts, in this streak
    _limit: int = 0  # the streak that chance does not explain
    _probes: int = 0  # attempts in this probe
    _probed_at: float = 0.0  # when the first of them began
    _ramp: float = inf  # the most attempts at once since the breaker closed; each success doubles it
    suspects: Suspects[D] = field(init=False)

    def __post_init__(self) -> None:
        self.suspects = Suspects(self.policy)

    # ----------------------------------------------------------- what may be done

    def width(self, concurrency: int) -> int:
        """How many attempts may be under way at once while the breaker is closed."""
        return max(int(min(concurrency, self._ramp)) >> len(self._streak), 1)

    @property
    def is_in_doubt(self) -> bool:
        """Whether enough messages failed in a row that an unrelated one should be tried."""
        return self.condition == "open" or self._ramp < inf or len(self._streak) >= DOUBTED

    def may_start(self, now: float, under_way: int, concurrency: int) -> bool:
        """Whether another attempt may start now, with this number under way."""
        match self.condition:
            case "closed":
                return under_way < self.width(concurrency)
            case "open":
                return not self.probing and now >= self.until
            case "throttled":
                return now >= self.until
        return False

    def start(self) -> None:
        """Note that an attempt starts."""
        if self.condition == "open":
            self.probing = True

    def withdraw(self) -> None:
        """Take back a start: the attempt was not made."""
        self.probing = False

    def end_wait(self, now: float) -> bool:
        """End the requested wait if its time has passed; return whether it just did."""
        if self.condition != "throttled" or now < self.until:
            return False
        self._turn("closed", now)
        return True

    # ------------------------------------------------------------------- rulings

    def judge(self, delivery: D, outcome: Outcome, started_at: float, now: float, *, others: int = 0) -> Ruling[D]:
        """Rule on a delivery whose attempt has ended, and on every suspect that this decides.

        Args:
            delivery: The delivery.
            outcome: How the attempt has ended.
            started_at: When it began.
            now: The time.
            others: How many other deliveries could be tried now.
        """
        is_probe = self.probing and started_at >= self.since
        self.probing = self.probing and not is_probe
        earlier = self.suspects.retried.pop(delivery, None)
        match outcome.kind:
            case "taken":
                return [(delivery, DELIVERED), *self._take(earlier, started_at, now)]
            case "busy":
                return [(delivery, charge(delivery, outcome, self.policy))]
            case "throttled":
                return [(delivery, None), *self._throttle(outcome, now)]
            case "gone":
                return [(delivery, None), *self._release_and_turn("off", now, outcome.reason)]
        if self.condition == "closed":
            return self._suspect(delivery, outcome, earlier, now)
        if self.condition == "open" and is_probe and self._is_probed(outcome, started_at, now, others):
            self._wait_longer(outcome, now)
        return [(delivery, None)]

    def resume(self, now: float) -> Ruling[D]:
        """Close the breaker: an operator, or another relay, reports that the destination works again."""
        self.pauses = 0
        return self._release_and_turn("closed", now)

    def adopt(self, shared_state: SharedState, now: float) -> Ruling[D]:
        """Adopt the finding of other relays that the destination takes no messages: no message here is at fault."""
        if self.condition == "off":
            return []
        released = self._release_and_turn(CONDITION_OF_STATE[shared_state.state], now, shared_state.reason or "")
        self.pauses, self.until = shared_state.pauses, now + (shared_state.wait_s or 0.0)
        return released

    # ------------------------------------------------------------------- suspects

    def _suspect(self, delivery: D, outcome: Outcome, earlier: Suspect[D] | None, now: float) -> Ruling[D]:
        if not self._streak:
            self._limit = self.rate.improbable_run
        self._streak.add(delivery.id)
        self.is_clear = False
        self._failures += 1
        ruling = self.suspects.add(delivery, outcome, earlier, now)
        if len(self._streak) >= self._limit:
            ruling += self._wait_longer(outcome, now)
        return ruling

    def _take(self, earlier: Suspect[D] | None, started_at: float, now: float) -> Ruling[D]:
        ruling = self.suspects.clear_up(earlier, started_at)
        if self.condition == "open" and started_at >= self.since:
            self.pauses = 0
            self._turn("closed", now)
            self._ramp = 1.0
        self._ramp = self._ramp * 2 if self._ramp < FULL_WIDTH else inf
        self._end_streak()
        self.rate.taken += 1
        return ruling

    # ----------------------------------------------------------------- conditions

    def _throttle(self, outcome: Outcome, now: float) -> Ruling[D]:
        if self.condition == "off":
            return []
        until = max(self.until if self.condition == "throttled" else now, now + clamped(outcome.retry_after_s))
        released = self._release_and_turn("throttled", now, outcome.reason)
        self.until = until
        return released

    def _is_probed(self, outcome: Outcome, started_at: float, now: float, others: int) -> bool:
        """Whether a failed probe is over: no different message is left to try, or the destination is away."""
        if not self._probes:
            self._probed_at = started_at
        self._probes += 1
        is_over = self._probes >= min(PROBE_WITH, others + 1) or now - self._probed_at >= PROBE_S
        return is_over or outcome.kind == "unreachable"

    def _wait_longer(self, outcome: Outcome, now: float) -> Ruling[D]:
        """Open, or stay open. Attempts that were under way when the breaker opened are no new evidence; a probe is."""
        self.pauses += 1
        released = self._release_and_turn("open", now, outcome.reason)
        self.until = now + min(self.policy.ceiling_s(self.pauses), PROBE_EVERY_S)
        return released

    def _release_and_turn(self, condition: Condition, now: float, reason: str = "") -> Ruling[D]:
        released = self.suspects.release_all()
        self._turn(condition, now, reason)
        return released

    def _turn(self, condition: Condition, now: float, reason: str = "") -> None:
        self.condition, self.reason, self.since = condition, reason, now
        self.probing, self._probes, self._ramp = False, 0, inf
        self._end_streak()

    def _end_streak(self) -> None:
        self.rate.add_run(self._failures)
        self._streak.clear()
        self._failures = 0
        self.is_clear = self.condition == "closed" and self._ramp == inf and not len(self.suspects)
