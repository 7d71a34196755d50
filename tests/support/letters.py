"""Letters and their outcomes, to ask a breaker whose fault a failure was, without a lane."""

from dataclasses import dataclass
from itertools import count
from typing import Any

from relay.decide.backoff import Policy
from relay.decide.breaker import CircuitBreaker
from relay.decide.outcome import TAKEN, Outcome, busy, failed, gone, refused, throttled, unanswered, unreachable
from relay.decide.verdict import Verdict

FAILED, REFUSED, BUSY = failed("500"), refused("422"), busy("409")
SILENT, DOWN = unanswered("no answer within 1 s"), unreachable("connection refused")
GONE, THROTTLED = gone("410"), throttled("429", 7)
OUTCOMES = [TAKEN, FAILED, REFUSED, BUSY, SILENT, DOWN, GONE, THROTTLED]

_numbers = count(1)


@dataclass(eq=False)
class Letter:
    """A delivery, as far as the breaker knows one."""

    number: int = 0
    attempts: int = 0
    failing_for_s: float = 0.0

    def __post_init__(self) -> None:
        self.number = self.number or next(_numbers)

    @property
    def id(self) -> str:
        return f"m-{self.number}"


def breaker(**policy: Any) -> CircuitBreaker[Letter]:
    """Make a new breaker."""
    return CircuitBreaker(Policy(**policy))


def attempt(
    rule: CircuitBreaker[Letter], letter: Letter, outcome: Outcome, now: float
) -> list[tuple[Letter, Verdict | None]]:
    """Make a single attempt that starts and ends now."""
    assert rule.may_start(now, 0, 1)
    rule.start()
    return rule.judge(letter, outcome, now, now)


def states(ruling: list[tuple[Letter, Verdict | None]]) -> list[str]:
    """Return the verdicts, in words."""
    return [verdict.state if verdict else "released" for _, verdict in ruling]
