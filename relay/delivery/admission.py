"""Decide whether an attempt at one destination may start now, and if not, when to look again."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from relay.databases.store.rows import EXPIRES_AT
from relay.decide.breaker import CircuitBreaker
from relay.decide.rate import Rate
from relay.decide.verdict import EXPIRED, PARKED, Verdict
from relay.delivery.health import SharedHealth
from relay.delivery.queue import DeliveryQueue
from relay.seam import Claim, Entry, Lease

LOOK_AGAIN_S = 0.02  # while this relay does not know that it owns its entries
SHARE_S = 0.25  # a share is the number of attempts that may start in this time
LEAST_S = 0.1  # if the budget is empty, wait until it has the attempts of this time: a round trip for each costs more
VALID_S = 0.5


class RateLimit:
    """One relay's share of a destination's common rate budget. All times are seconds of one clock.

    The budget is in the database, and every relay takes from it. A lane takes a few attempts at a time, as many as it
    could start in `SHARE_S`, and may start them within `VALID_S`. Attempts that it has not started by then are lost, so
    no relay saves them up and exceeds the limit later. In any `t` seconds all relays together therefore start at most
    `burst + rate * (t + VALID_S)` attempts.

    Args:
        name: The destination.
        rate: The limit.
        on_claim: Called when a share is needed; `answer` says how large it is.
    """

    def __init__(self, name: str, rate: Rate, on_claim: Callable[[Claim], None]) -> None:
        self._name, self._rate, self._on_claim = name, rate, on_claim
        self._left = 0
        self._valid_until = self._look_at = -inf
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
        """Return when to ask for the next share, if that is later than now and no answer is awaited; else infinity."""
        return inf if self._is_asking or self.left(now) or self._look_at <= now else self._look_at

    def start(self, count: int) -> None:
        """Note that this number of attempts start; a negative number takes starts back."""
        self._left -= count

    def answer(self, granted: int, wait_s: float, asked_at: float) -> None:
        """Add a share.

        Args:
            granted: How many attempts the share has.
            wait_s: Seconds from the question until one more attempt is free.
            asked_at: The time of the question.
        """
        self._is_asking = False
        self._left, self._valid_until = granted, asked_at + VALID_S
        gather_s = (self._rate.chunk(LEAST_S) - 1) / self._rate.per_s
        self._look_at = asked_at if granted == self._want else asked_at + wait_s + gather_s


class Admission:
    """Lets attempts start.

    Args:
        queue: The entries that wait.
        breaker: The circuit breaker of the destination.
        health: The shared knowledge of all relays and operators about the destination.
        lease: The current session, and the database's clock.
        may_send: Returns whether the relay owns its entries at a given time, and no delivery is tried alone.
        concurrency: The most attempts that may be under way at once.
        rate_limit: How many attempts may start in a time; ``None``: any number.
        expires_in_s: The age in seconds from which the destination does not want a message any more; ``None``: no
            limit.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        breaker: CircuitBreaker[Entry],
        health: SharedHealth,
        *,
        lease: Lease,
        may_send: Callable[[float], bool],
        concurrency: int,
        rate_limit: RateLimit | None,
        expires_in_s: float | None,
    ) -> None:
        self._queue, self._breaker, self._health = queue, breaker, health
        self._lease, self._may_send = lease, may_send
        self._concurrency, self._expires_in_s = concurrency, expires_in_s
        self.rate_limit = rate_limit

    def allows(self, now: float) -> bool:
        """Return whether an attempt may start now; if not, request the missing probe or share."""
        breaker = self._breaker
        if self._health.operator_pause is not None or not self._may_send(now):
            return False
        if breaker.is_clear:
            return self.rate_limit is None or self._is_within_rate(now)
        if breaker.end_wait(now):
            self._health.turned("throttled", now)
        is_allowed = breaker.may_start(now, len(self._queue.under_way), self._concurrency)
        return is_allowed and self._is_within_rate(now) and self._health.may_probe_or_asks()

    def refusal(self, entry: Entry, now: float) -> Verdict | None:
        """Return the verdict on an entry that may not be sent any more; ``None`` if it may be sent.

        An entry of an ended session is read again.
        """
        if entry.epoch != self._lease.arrived_epoch:
            return PARKED
        if self._expires_in_s is None and entry.row[EXPIRES_AT] is None:
            return None
        return EXPIRED if self._is_expired(entry, now) else None

    def _is_expired(self, entry: Entry, now: float) -> bool:
        offset_s = self._lease.clock_offset_s
        return offset_s is not None and now + offset_s >= entry.expires_at_s(self._expires_in_s)

    def _is_within_rate(self, now: float) -> bool:
        """Return whether the rate limit permits an attempt now; if not, request a share of the budget."""
        limit = self.rate_limit
        if limit is None:
            return True
        return limit.may_start(now, len(self._queue.startable) if self._breaker.condition == "closed" else 1)

    def at_most(self, count: int, now: float) -> int:
        """Return how many of these attempts may start together with an attempt that is allowed."""
        if self._breaker.condition != "closed":
            return 0
        return count if self.rate_limit is None else min(count, self.rate_limit.left(now))

    def start(self, count: int) -> None:
        """Note that this number of attempts start; a negative number takes starts back."""
        if self.rate_limit is not None:
            self.rate_limit.start(count)

    def next_at(self, now: float) -> float:
        """Return when an attempt may start without any further event; infinity if only an event can permit one."""
        breaker = self._breaker
        if not self._queue.startable or self._health.operator_pause is not None:
            return inf
        if breaker.condition in ("open", "throttled") and breaker.until > now:
            return breaker.until
        if self._is_to_look_again(now):
            return now + LOOK_AGAIN_S
        return self.rate_limit.next_at(now) if self.rate_limit is not None else inf

    def _is_to_look_again(self, now: float) -> bool:
        """Return whether no event will announce that an attempt may start."""
        if not self._may_send(now):
            return True
        if self.rate_limit is not None and not self.rate_limit.left(now):
            return False  # the rate limit itself knows when to look
        match self._breaker.condition:
            case "closed":
                return not self._queue.under_way
            case "open":
                return not (self._breaker.probing or self._health.is_asking)
        return False
