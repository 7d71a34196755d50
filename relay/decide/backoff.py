"""How long to wait before the next attempt."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_S, MOST_S = 1.0, 3_600.0  # the limits of a wait that a destination asks for


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a destination's deliveries are.

    Args:
        max_attempts: The number of charged attempts after which a message is dead.
        give_up_after_s: Seconds after the first charged failure at which a message is dead.
        backoff_s: The ceiling of the first wait, in seconds; it doubles.
        backoff_max_s: The ceiling of the longest wait, in seconds.
    """

    max_attempts: int = 20
    give_up_after_s: float = 3 * 86_400
    backoff_s: float = 1.0
    backoff_max_s: float = 3_600.0

    def ceiling_s(self, failures: int) -> float:
        """Return the longest wait after this number of failures in a row; it doubles up to a limit."""
        doublings = min(max(failures - 1, 0), 60)
        return min(self.backoff_s * 2.0**doublings, self.backoff_max_s)


def jittered(ceiling_s: float, chance: float) -> float:
    """Return a wait with full jitter: between 0 and the ceiling, for a ``chance`` in [0, 1).

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return ceiling_s * chance


def half_jittered(ceiling_s: float, chance: float) -> float:
    """Return a wait of at least half the ceiling, for cases in which an immediate repetition would do harm."""
    return ceiling_s * (0.5 + chance / 2)


def clamped(retry_after_s: float | None) -> float:
    """Return the wait that a destination asked for, limited so that it is neither 0 nor endless."""
    if retry_after_s is None or retry_after_s != retry_after_s:
        return LEAST_S
    return min(max(retry_after_s, LEAST_S), MOST_S)
