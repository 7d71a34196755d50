"""A rate limit that several relays share: how many attempts may start now, and how long to wait for the next one.

This is the generic cell rate algorithm (ITU-T I.371). One number describes the whole state: the *theoretical arrival*,
at which the next attempt would start if all attempts were evenly spaced. Each attempt moves the theoretical arrival by
`1 / per_s`, and it never lies in the past. An attempt may start while it lies less than `burst / per_s` ahead of now.
So after a pause `burst` attempts may start at once, and then `per_s` in each second. In any `t` seconds, at most `burst
+ per_s * t` may start.

The relays that share a limit keep the number in the database, and use its clock
(`relay.databases.store.contract.Ownership.claim_rate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

EASE = 1e-6  # the fraction of an attempt that allows for the rounding of a clock's floating-point numbers


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit.

    Args:
        per_s: Attempts per second, in the long run.
        burst: The number of attempts that may start at once after a pause, at least 1.
        text: How a person wrote it, such as ``50/s``.
    """

    per_s: float
    burst: int
    text: str = ""

    def chunk(self, seconds: float) -> int:
        """Return how many attempts may start in this number of seconds: at least 1, at most `burst`."""
        return max(min(ceil(self.per_s * seconds), self.burst), 1)

    def claim(self, arrival_s: float, now_s: float, want: int) -> tuple[int, float]:
        """Claim attempts.

        Args:
            arrival_s: The theoretical arrival.
            now_s: The time, by the same clock.
            want: How many attempts would start.

        Returns:
            How many of them may start, and the theoretical arrival after these.
        """
        # An arrival more than a burst ahead was written before the clock was set back, or by hand: it must not last.
        arrival_s = min(max(now_s, arrival_s), now_s + self.burst / self.per_s)
        room = floor(self.burst - (arrival_s - now_s) * self.per_s + EASE)
        granted = max(min(room, want), 0)
        return granted, arrival_s + granted / self.per_s

    def wait_s(self, arrival_s: float, now_s: float) -> float:
        """Return how many seconds remain until one more attempt may start."""
        return max(arrival_s - now_s - (self.burst - 1) / self.per_s, 0.0)
