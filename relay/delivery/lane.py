"""One destination's lane: what is sent next, and what becomes of it. It decides, and neither waits nor sends.

A lane *has* a queue (what waits, in which order), a circuit breaker (whose fault was it), what the relays know of the
destination together, and perhaps a rate limit. `relay.delivery.workers` sends what `next` says, and tells `finish` what
came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from relay.decide.backoff import Policy
from relay.decide.breaker import CircuitBreaker, Ruling
from relay.decide.outcome import TAKEN, Outcome
from relay.decide.standing import Finding, Standing
from relay.decide.verdict import DELIVERED, EXPIRED, PARKED, Verdict
from relay.delivery.entry import Entry
from relay.delivery.health import SharedHealth
from relay.delivery.queue import DeliveryQueue
from relay.delivery.rate_limit import RateLimit

LOOK_AGAIN_S = 0.02  # while this relay does not know that it owns what it holds
FOR_ALL = ("unreachable", "throttled", "gone")  # what holds for every message of a batch


class Lane:
    """The way to one destination.

    Args:
        name: The destination.
        policy: How patient its deliveries are.
        concurrency: Attempts under way at once at most.
        limit: Entries held in memory at most, without what is set back.
        on_dead: ``"block"`` or ``"skip"``: whether a dead letter holds its key's successors up.
        on_complete: Called with an entry when the last of its verdicts is in.
        on_finding: Called with what the other relays, and people, should know of the destination.
        on_probe: Called with the name when it is time to probe it; `answer` says whether this relay may.
        may_send: Whether this relay knows, at this time, that it owns what it holds.
        has_siblings: Whether there are other destinations.
        clock: The time, in seconds.
        on_ready: Called with how many attempts may start now.
        rate_limit: How many attempts may start in a time; ``None``: any number.
        expires_in_s: So long after a message was written, or fell due, it is not sent any more.

    Attributes:
        clock_offset_s: What to add to our clock to have the database's; ``None`` while that is unknown.
        epoch: The session that owns now: what another one read is not sent any more.
    """

    def __init__(
        self,
        name: str,
        *,
        policy: Policy,
        concurrency: int,
        limit: int,
        on_dead: str,
        on_complete: Callable[[Entry], None],
        on_finding: Callable[[Finding], None],
        on_probe: Callable[[str], None],
        may_send: Callable[[float], bool],
        has_siblings: bool,
        clock: Callable[[], float],
        on_ready: Callable[[int], None],
        rate_limit: RateLimit | None = None,
        expires_in_s: float | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.concurrency = concurrency
        self.on_dead = on_dead
        self.has_siblings = has_siblings
        self.queue = DeliveryQueue(name, limit=limit, on_dead=on_dead, on_complete=on_complete)
        self.breaker: CircuitBreaker[Entry] = CircuitBreaker(policy)
        self.health = SharedHealth(name, self.breaker, on_finding=on_finding, on_probe=on_probe)
        self.epoch = 0
        self._may_send = may_send
        self._clock = clock
        self._on_ready = on_ready
        self._rate_limit = rate_limit
        self._expires_in_s = expires_in_s
        self.clock_offset_s: float | None = None
        self._tries_newest = False

    # ------------------------------------------------------------- coming in

    @property
    def takes_messages(self) -> bool:
        """Whether the destination takes what comes, as far as is known."""
        return self.health.takes_messages

    @property
    def wants(self) -> int:
        """How many more entries it has room for.

        One that is down leaves the room to its siblings. An only one reads on: a newcomer may show that it is back.
        """
        return self.queue.room(self.queue.limit if self.takes_messages or not self.has_siblings else self.queue.reserve)

    def accept(self, entry: Entry, before: int | None) -> None:
        """Take a newcomer in, or set it aside; see `DeliveryQueue.accept`."""
        # An only destination is read while it has room, and no longer. One that is down and has siblings keeps the
        # newest, too: what has not been tried yet may be what shows that it is back.
        has_room = not self.has_siblings or self.wants > 0
        if has_room or self.takes_messages:
            self.queue.accept(entry, before=before, has_room=has_room)
            return
        self.queue.accept(entry, before=before, has_room=entry.key is None)
        if len(self.queue.startable.fresh) > self.queue.reserve:
            self._park_down_to_reserve()

    def accept_back(self, entry: Entry, before: int | None) -> None:
        """Take an entry in that had been set aside, or set it aside again."""
        self.queue.accept_back(entry, before=before, has_room=self.wants > 0)

    def set_aside(self, entry: Entry, verdict: Verdict) -> None:
        """Set an entry aside without trying it."""
        self.queue.set_aside(entry, verdict)

    def forget(self, entry: Entry) -> None:
        """Note that an entry is settled."""
        self.queue.forget(entry)

    def announce(self) -> None:
        """Say that something may have become ready to be sent."""
        self._on_ready(len(self.queue.startable))

    # -------------------------------------------------------------- going out

    def next(self, now: float) -> Entry | None:
        """The next entry to be sent, which is under way from here on; ``None`` while nothing may start."""
        queue, breaker = self.queue, self.breaker
        if breaker.failing_count:
            self._rule_on_suspects(now)
        if not queue.startable or self.health.operator_pause is not None or not self._may_send(now):
            return None
        if breaker.is_clear:
            return self._pick(now) if self._is_within_rate(now) else None
        if breaker.end_wait(now):
            self.health.turned("throttled", now)
        if not breaker.may_start(now, len(queue.under_way), self.concurrency) or not self._is_within_rate(now):
            return None
        if not self.health.may_probe_or_asks():
            return None
        self._tries_newest = breaker.is_in_doubt and not self._tries_newest
        entry = self._pick(now, newest=self._tries_newest)
        if entry is not None:
            breaker.start()
        return entry

    def _pick(self, now: float, *, newest: bool = False) -> Entry | None:
        """The next whose session still owns it, and whose time has not passed.

        What was under way when its session ended is read again.
        """
        while (entry := self.queue.pick(newest=newest)) is not None:
            verdict = PARKED if entry.epoch != self.epoch else EXPIRED if self._is_expired(entry, now) else None
            if verdict is None:
                if self._rate_limit is not None:
                    self._rate_limit.start()
                return entry
            self.queue.end_attempt(entry)
            self.breaker.forget(entry)
            self.queue.decide(entry, verdict)
        return None

    def _is_expired(self, entry: Entry, now: float) -> bool:
        """Whether its time has passed, by the database's clock."""
        if self.clock_offset_s is None or (entry.expires_s is None and self._expires_in_s is None):
            return False
        return now + self.clock_offset_s >= entry.expires_at_s(self._expires_in_s)

    def _is_within_rate(self, now: float) -> bool:
        """Whether the rate limit lets an attempt start now; if not, a share of the budget is asked for in time."""
        limit = self._rate_limit
        if limit is None:
            return True
        return limit.may_start(now, len(self.queue.startable) if self.breaker.condition == "closed" else 1)

    def companions(self, may_follow: Callable[[Entry], bool], count: int, now: float) -> list[Entry]:
        """What may go in one batch with the entry that `next` returned; it is under way from here on."""
        if self.breaker.condition != "closed":
            return []
        limit = self._rate_limit
        if limit is not None:
            count = min(count, limit.left(now))

        def may_start(entry: Entry) -> bool:
            return entry.epoch == self.epoch and not self._is_expired(entry, now) and may_follow(entry)

        found = self.queue.pick_more(may_start, count)
        if limit is not None:
            limit.start(len(found))
        return found

    def withdraw(self, entry: Entry) -> None:
        """Take back an entry that was to be sent, and may not be now."""
        self.queue.put_back(entry)
        self.breaker.withdraw()
        if self._rate_limit is not None:
            self._rate_limit.withdraw()

    def next_at(self, now: float) -> float | None:
        """When to look again, although nothing calls: ``None`` while only something that calls can change anything."""
        breaker = self.breaker
        at = breaker.next_retry_at
        if self.queue.startable and self.health.operator_pause is None:
            if breaker.condition in ("open", "throttled") and breaker.until > now:
                at = min(at, breaker.until)
            elif self._is_to_look_again(now):
                at = min(at, now + LOOK_AGAIN_S)
            elif self._rate_limit is not None:
                at = min(at, self._rate_limit.next_at(now))
        return at if at < inf else None

    def _is_to_look_again(self, now: float) -> bool:
        """Whether nothing under way will call when an attempt may start."""
        if not self._may_send(now):
            return True
        if self._rate_limit is not None and not self._rate_limit.left(now):
            return False  # it knows itself when to look
        match self.breaker.condition:
            case "closed":
                return not self.queue.under_way
            case "open":
                return not (self.breaker.probing or self.health.is_asking)
        return False

    # ---------------------------------------------------------------- verdicts

    def finish(self, entry: Entry, outcome: Outcome, started_at: float) -> None:
        """Rule on one entry whose attempt has ended."""
        entry = self.queue.end_attempt(entry)
        if outcome is TAKEN:
            self.health.note_taken(started_at)
            if self.breaker.is_clear:
                self.breaker.count_taken()
                self.queue.decide(entry, DELIVERED)
                return
        self._rule(entry, outcome, started_at)

    def finish_batch(self, batch: Sequence[Entry], outcomes: Outcome | Sequence[Outcome], started_at: float) -> None:
        """Rule on entries that were sent together.

        Args:
            batch: The entries, each under way until it is ruled on here.
            outcomes: One for each of them in their order, or one for all. What names no message to blame holds for
                all; after anything else they are sent again one by one, so that one bad message never condemns its
                neighbours.
            started_at: When the attempt began.
        """
        if not isinstance(outcomes, Outcome):
            for entry, outcome in zip(batch, outcomes, strict=True):
                self.finish(entry, outcome, started_at)
            return
        if outcomes is TAKEN or outcomes.kind in FOR_ALL:
            for entry in batch:
                self.finish(entry, outcomes, started_at)
            return
        for entry in reversed(batch):  # each goes to the front
            self.queue.put_back(entry).alone = True
        self.announce()

    def _rule(self, entry: Entry, outcome: Outcome, started_at: float) -> None:
        now, breaker = self._clock(), self.breaker
        if outcome is not TAKEN:
            self.health.note_failed(now)
        before = breaker.condition, breaker.until
        ruling = breaker.judge(entry, outcome, started_at, now)
        if not any(ruled is entry for ruled, _ in ruling):
            self.queue.suspect(entry)
        self._carry_out(ruling)
        self._rule_alone(now)
        if (breaker.condition, breaker.until) != before:
            self.health.turned(before[0], now)
            self._shrink()
        self.announce()

    def _rule_alone(self, now: float) -> None:
        if not self.queue.startable and not self.queue.under_way and self.breaker.failing_count:
            self._carry_out(self.breaker.rule_alone(now))

    def _rule_on_suspects(self, now: float) -> None:
        if self.breaker.next_retry_at <= now:
            self._carry_out(self.breaker.rule_due(now))

    def _carry_out(self, ruling: Ruling[Entry]) -> None:
        for entry, verdict in ruling:
            if verdict is None:
                self.queue.retry(entry)
            else:
                self.queue.decide(entry, verdict)
        if self.queue.startable.again:
            self._forget_all(self.queue.overflow())

    # ------------------------------------------------------------- other relays

    def heed(self, standing: Standing, asked_at: float, *, alone: bool) -> None:
        """Take in what all relays, and operators, say of this destination, as of `asked_at`."""
        self._apply(self.health.heed(standing, asked_at, self._clock(), alone=alone))

    def answer(self, claimed: bool, standing: Standing, asked_at: float) -> None:
        """Take in whether this relay probes for all of them, or how long to wait for the one that does."""
        self._apply(self.health.answer(claimed, standing, asked_at))

    def answer_claim(self, granted: int, wait_s: float, asked_at: float) -> None:
        """Take in a share of the budget that all relays have; see `RateLimit.answer`."""
        assert self._rate_limit is not None
        self._rate_limit.answer(granted, wait_s, asked_at)
        self.announce()

    def _apply(self, ruling: Ruling[Entry]) -> None:
        self._carry_out(ruling)
        self._shrink()
        self.announce()

    def _shrink(self) -> None:
        """Keep only what it takes to probe, while the destination takes nothing and others wait for the room."""
        if self.has_siblings and self.breaker.condition != "closed":
            self._park_down_to_reserve()

    # ------------------------------------------------------------- letting go

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing happens here, nor will before some time has passed."""
        return not self.queue.under_way and not (self.queue.startable and self.takes_messages)

    def evict(self, belongs: Callable[[Entry], bool]) -> list[Entry]:
        """Let go of every entry that `belongs` and is not under way; see `DeliveryQueue.evict`."""
        return self._forget_all(self.queue.evict(belongs))

    def park(self, belongs: Callable[[Entry], bool]) -> None:
        """Put every entry that `belongs` back into the table, and what waits with its key; not what is under way."""
        self._forget_all(self.queue.park(belongs))

    def hand_over(self, entry: Entry) -> Entry | None:
        """Part an entry that is under way, or a suspect, from its siblings' verdicts; what stands for it, if it is."""
        rest = entry.rest_for(self)
        if not self.queue.hand_over(entry, rest):
            return None
        self.breaker.replace(entry, rest)
        return rest

    def _park_down_to_reserve(self) -> None:
        self._forget_all(self.queue.park_down_to_reserve())

    def _forget_all(self, entries: list[Entry]) -> list[Entry]:
        if entries and self.breaker.failing_count:
            for entry in entries:
                self.breaker.forget(entry)
        return entries


def under_way(lanes: Iterable[Lane]) -> list[tuple[str, Entry]]:
    """What is being attempted at this moment, with its destination."""
    return [(lane.name, entry) for lane in lanes for entry in lane.queue.under_way.values()]
