"""A rate limit that several relays share: how many attempts may start now, and how long to wait for the next one.

The generic cell rate algorithm (ITU-T I.371). One number describes the whole state: the *theoretical arrival* of the
next attempt, if all attempts were evenly spaced. Each attempt moves it by `1 / per_s`, and it never lies before now. An
attempt may start while it lies less than `burst / per_s` ahead of now. So after a pause `burst` attempts may start at
once, and after that `per_s` in each second: in any `t` seconds at most `burst + per_s * t`.

The databases do the same calculation in one statement, with their own clock
(`relay.store.contract.Session.claim_rate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

EASE = 1e-6  # of an attempt: the error of a clock in floating point


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit.

    Args:
        per_s: Attempts per second, in the long run.
        burst: Attempts at once after a pause, at least 1.
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
            How many of them may, and the theoretical arrival after these.
        """
        arrival_s = max(arrival_s, now_s)
        room = floor(self.burst - (arrival_s - now_s) * self.per_s + EASE)
        granted = max(min(room, want), 0)
        return granted, arrival_s + granted / self.per_s

    def wait_s(self, arrival_s: float, now_s: float) -> float:
        """Return the seconds until one more may start."""
        return max(arrival_s - now_s - (self.burst - 1) / self.per_s, 0.0)
