"""A destination's rate limit in one relay: its share of the common budget, and when to ask for the next one.

The budget stands in the database, and every relay takes from it. A lane takes a few attempts at a time, as many as it
could start in `SHARE_S`, and may start them within `VALID_S`. Attempts that it has not started by then are lost, so no
relay saves them up and exceeds the limit later. So in any `t` seconds all relays together start at most `burst + rate *
(t + VALID_S)` attempts.

The lane asks through the owning thread, which answers, as for a probe.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from relay.decide.rate import Rate
from relay.seam import Claim

SHARE_S = 0.25  # a share is the number of attempts that may start in this time
LEAST_S = 0.1  # with an empty budget, wait for the attempts of this time: a round trip for each would cost more
VALID_S = 0.5


class RateLimit:
    """One relay's share of a destination's budget. Times are seconds of any one clock.

    Args:
        name: The destination.
        rate: The limit.
        on_claim: Called when a share is needed; `answer` says how large it is.
    """

    def __init__(self, name: str, rate: Rate, *, on_claim: Callable[[Claim], None]) -> None:
        self._name, self._rate, self._on_claim = name, rate, on_claim
        self._left = 0
        self._valid_until = -inf
        self._look_at = -inf
        self._want = 0
        self._is_asking = False

    def left(self, now: float) -> int:
        """Return how many attempts may start now."""
        return self._left if now < self._valid_until else 0

    def may_start(self, now: float, startable: int) -> bool:
        """Return whether an attempt may start now; if not, request a share as soon as one can be free.

        Args:
            now: The time.
            startable: How many attempts would start.
        """
        if self.left(now):
            return True
        if not self._is_asking and now >= self._look_at:
            self._is_asking = True
            self._want = min(max(startable, 1), self._rate.chunk(SHARE_S))
            self._on_claim(Claim(self._name, self._want, self._rate))
        return False

    def next_at(self, now: float) -> float:
        """Return when to ask for the next share, if that is later than now and no answer is due; else infinity."""
        return inf if self._is_asking or self.left(now) or self._look_at <= now else self._look_at

    def start(self, count: int = 1) -> None:
        """Note that attempts start."""
        self._left -= count

    def withdraw(self) -> None:
        """Take back a start: the attempt was not made."""
        self._left += 1

    def answer(self, granted: int, wait_s: float, asked_at: float) -> None:
        """Add a share.

        Args:
            granted: How many attempts it has.
            wait_s: Seconds from the question until one more attempt is free.
            asked_at: The time of the question.
        """
        self._is_asking = False
        self._left, self._valid_until = granted, asked_at + VALID_S
        gather_s = (self._rate.chunk(LEAST_S) - 1) / self._rate.per_s
        self._look_at = asked_at if granted == self._want else asked_at + wait_s + gather_s
