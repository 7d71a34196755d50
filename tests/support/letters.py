"""Letters, and what can become of them: for asking whose fault it was, without a lane."""

from dataclasses import dataclass
from typing import Any

from relay.decide.backoff import Policy
from relay.decide.blame import Blame
from relay.decide.outcome import TAKEN, busy, failed, gone, refused, throttled, unreachable

FAILED, REFUSED, BUSY = failed("500"), refused("422"), busy("409")
DOWN, GONE, THROTTLED = unreachable("connection refused"), gone("410"), throttled("429", 7)
OUTCOMES = [TAKEN, FAILED, REFUSED, BUSY, DOWN, GONE, THROTTLED]


@dataclass(eq=False)
class Letter:
    number: int = 0
    attempts: int = 0
    failing_for_s: float = 0.0


def blame(**policy: Any) -> Blame[Letter]:
    return Blame(Policy(**policy))
