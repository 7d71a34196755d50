"""Whether an attempt at one destination may start now, and when to look again if not."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from relay.decide.breaker import CircuitBreaker
from relay.delivery.admission.rate_limit import RateLimit
from relay.delivery.health import SharedHealth
from relay.delivery.queue import DeliveryQueue
from relay.seam import Entry

LOOK_AGAIN_S = 0.02  # while this relay does not know that it owns its entries


class Admission:
    """Lets attempts start.

    Args:
        queue: The entries that wait.
        breaker: The circuit breaker of the destination.
        health: The shared knowledge of all relays and operators about the destination.
        may_send: Returns whether the relay owns its entries at a time.
        concurrency: Attempts under way at once at most.
        rate_limit: How many attempts may start in a time; ``None``: any number.

    Attributes:
        is_limited: Whether there is a rate limit, which has to know each attempt that starts.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        breaker: CircuitBreaker[Entry],
        health: SharedHealth,
        *,
        may_send: Callable[[float], bool],
        concurrency: int,
        rate_limit: RateLimit | None,
    ) -> None:
        self._queue, self._breaker, self._health = queue, breaker, health
        self._may_send, self._concurrency, self._rate_limit = may_send, concurrency, rate_limit
        self.is_limited = rate_limit is not None

    def allows(self, now: float) -> bool:
        """Return whether an attempt may start now; if not, request the missing probe or share."""
        breaker = self._breaker
        if self._health.operator_pause is not None or not self._may_send(now):
            return False
        if breaker.is_clear:
            return self._rate_limit is None or self._is_within_rate(now)
        if breaker.end_wait(now):
            self._health.turned("throttled", now)
        is_allowed = breaker.may_start(now, len(self._queue.under_way), self._concurrency)
        return is_allowed and self._is_within_rate(now) and self._health.may_probe_or_asks()

    def _is_within_rate(self, now: float) -> bool:
        """Return whether the rate limit permits an attempt now; if not, request a share of the budget."""
        limit = self._rate_limit
        if limit is None:
            return True
        return limit.may_start(now, len(self._queue.startable) if self._breaker.condition == "closed" else 1)

    def at_most(self, count: int, now: float) -> int:
        """Return how many of these attempts may start together with one that is allowed."""
        if self._breaker.condition != "closed":
            return 0
        return count if self._rate_limit is None else min(count, self._rate_limit.left(now))

    def start(self, count: int = 1) -> None:
        """Note that attempts start."""
        if self._rate_limit is not None:
            self._rate_limit.start(count)

    def withdraw(self) -> None:
        """Take back a start: the attempt was not made."""
        if self._rate_limit is not None:
            self._rate_limit.withdraw()

    def answer_claim(self, granted: int, wait_s: float, asked_at: float) -> None:
        """Add a share of the common budget; see `RateLimit.answer`."""
        assert self._rate_limit is not None
        self._rate_limit.answer(granted, wait_s, asked_at)

    def next_at(self, now: float) -> float:
        """Return when an attempt may start without another event; infinity if only an event can permit one."""
        breaker = self._breaker
        if not self._queue.startable or self._health.operator_pause is not None:
            return inf
        if breaker.condition in ("open", "throttled") and breaker.until > now:
            return breaker.until
        if self._is_to_look_again(now):
            return now + LOOK_AGAIN_S
        return self._rate_limit.next_at(now) if self._rate_limit is not None else inf

    def _is_to_look_again(self, now: float) -> bool:
        """Return whether no event will announce that an attempt may start."""
        if not self._may_send(now):
            return True
        if self._rate_limit is not None and not self._rate_limit.left(now):
            return False  # it knows itself when to look
        match self._breaker.condition:
            case "closed":
                return not self._queue.under_way
            case "open":
                return not (self._breaker.probing or self._health.is_asking)
        return False
