"""One destination's lane: it chooses the next entry to send, and takes its outcome.

A lane only decides. `relay.delivery.workers` sends the entry that `next` returns, and gives its outcome to `finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

from relay.databases.store.rows import Pair
from relay.decide.breaker import CircuitBreaker
from relay.decide.failures.doubt import place_in_doubt
from relay.decide.failures.suspects import Ruling
from relay.decide.outcome import TAKEN, Outcome
from relay.decide.shared_state import SharedState
from relay.decide.verdict import DELIVERED, put_off
from relay.delivery.admission import Admission, RateLimit
from relay.delivery.health import SharedHealth
from relay.delivery.queue import DeliveryQueue
from relay.destinations.policy import DestinationPolicy
from relay.seam import Entry, Lease, ToOwner

FOR_ALL = ("unreachable", "throttled", "gone")  # outcomes that hold for every message of a batch


class Lane:
    """The lane of one destination.

    Args:
        name: The destination.
        policy: Its settings.
        concurrency: The most attempts that may be under way at once.
        limit: The most entries in memory, without those that are set back.
        has_siblings: Whether there are other destinations.
        owner: Reaches the owning thread.
        lease: The current session.
        may_send: Returns whether the relay owns its entries at a given time, and no delivery is tried alone.
        on_complete: Called with an entry when it has its last verdict.
        on_failure: Called with the reason of each attempt that failed.
        clock: The time, in seconds.

    Attributes:
        queue: The entries that wait, and their order.
        breaker: Decides whose fault a failure was.
        health: The shared health of the destination.
        admission: Decides whether an attempt may start now, and whether an entry may still be sent.
        on_ready: Called with how many attempts may start now.
    """

    def __init__(
        self,
        name: str,
        policy: DestinationPolicy,
        *,
        concurrency: int,
        limit: int,
        has_siblings: bool,
        owner: ToOwner,
        lease: Lease,
        may_send: Callable[[float], bool],
        on_complete: Callable[[Entry], None],
        on_failure: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.name, self.has_siblings, self.events = name, has_siblings, policy.events
        self.policy, rate = policy.retry_policy, policy.rate_limit
        self.breaker: CircuitBreaker[Entry] = CircuitBreaker(self.policy)
        suspects = self.breaker.suspects.waiting
        self.queue = DeliveryQueue(name, suspects, limit=limit, on_dead=policy.on_dead, on_complete=on_complete)
        self.health = SharedHealth(name, self.breaker, owner)
        self.admission = Admission(
            self.queue,
            self.breaker,
            self.health,
            lease=lease,
            may_send=may_send,
            concurrency=concurrency,
            rate_limit=RateLimit(name, rate, owner.request) if rate is not None else None,
            expires_in_s=policy.expires_in,
        )
        self.on_ready: Callable[[int], None] = lambda _count: None
        self._clock, self._on_failure = clock, on_failure
        self._doubted = 0  # attempts in a row that were made in doubt
        self._failed_types: set[str] = set()  # types of the messages that failed in doubt since one was taken

    # ------------------------------------------------------------- coming in

    @property
    def takes_messages(self) -> bool:
        """Whether the destination takes messages, as far as is known."""
        return self.health.takes_messages

    @property
    def wants(self) -> int:
        """How many more entries the lane has room for.

        A destination that is down leaves the room to the other destinations. If it is the only one, reading goes on,
        because a new message may show that it is back.
        """
        return self.queue.room(self.queue.limit if self.takes_messages or not self.has_siblings else self.queue.reserve)

    def accept_all(self, entries: Sequence[Entry], held: Mapping[Pair, int]) -> None:
        """Take new entries in their order; `held` has the lowest position of each key in the table."""
        has_room = not self.has_siblings or self.wants >= len(entries)
        for entry in self.queue.accept_all(entries) if has_room and not held else entries:
            self.accept(entry, held.get((self.name, entry.key)) if entry.key is not None else None)

    def accept(self, entry: Entry, before: int | None) -> None:
        """Take a new entry, or set it aside; see `DeliveryQueue.accept`."""
        # If this is the only destination, reading stops when it has no room. One of several that is down also keeps its
        # newest entry: an entry that has not been tried may show that the destination is back.
        has_room = not self.has_siblings or self.wants > 0
        if has_room or self.takes_messages:
            self.queue.accept(entry, before=before, has_room=has_room)
            return
        self.queue.accept(entry, before=before, has_room=self._may_probe(entry))
        if len(self.queue.startable.fresh) > self.queue.reserve:
            self._forget_all(self.queue.park_down_to_reserve())

    def _may_probe(self, entry: Entry) -> bool:
        """Return whether the entry would not have to wait for an earlier message of its key in memory."""
        return entry.key is None or self.queue.chains.of(entry.key) is None

    def accept_back(self, entry: Entry, before: int | None) -> None:
        """Take an entry that was read back from the table, or set it aside again."""
        is_retry = entry.attempts > 0 and self.takes_messages
        verdict = put_off(self.policy.ceiling_s(entry.attempts)) if is_retry else None
        self.queue.accept_back(entry, before=before, has_room=self.wants > 0, put_off=verdict)

    def announce(self) -> None:
        """Wake workers: an entry may have become ready to be sent."""
        self.on_ready(len(self.queue.startable))

    # -------------------------------------------------------------- going out

    def next(self, now: float) -> Entry | None:
        """Return the next entry to send, which is under way from here on; ``None`` while no attempt may start."""
        startable, breaker = self.queue.startable, self.breaker
        is_clear = breaker.is_clear
        if not is_clear and breaker.suspects.next_retry_at <= now:
            self._carry_out(breaker.suspects.rule_due(now))
        if not (startable.fresh or startable.again) or not self.admission.allows(now):
            return None
        if is_clear:
            return self._pick(now)
        self._doubted = self._doubted + 1 if breaker.is_in_doubt else 0
        entry = self._pick(now, place_in_doubt(self._doubted))
        if entry is not None:
            breaker.start()
        return entry

    def _pick(self, now: float, at: float | None = None) -> Entry | None:
        """Take the next entry that may still be sent; decide the entries before it that may not."""
        while (entry := self.queue.pick(at, self._failed_types)) is not None:
            verdict = self.admission.refusal(entry, now)
            if verdict is None:
                self.admission.start(1)
                return entry
            self.queue.end_attempt(entry)
            self.breaker.suspects.forget(entry)
            self.queue.decide(entry, verdict)
        return None

    def companions(self, may_follow: Callable[[Entry], bool], count: int, now: float) -> list[Entry]:
        """Return the entries that may go in one batch with the entry that `next` returned; they are under way now."""

        def may_start(entry: Entry) -> bool:
            return self.admission.refusal(entry, now) is None and may_follow(entry)

        found = self.queue.pick_more(may_start, self.admission.at_most(count, now))
        self.admission.start(len(found))
        return found

    def withdraw(self, entry: Entry) -> None:
        """Take back an entry that may not be sent any more."""
        self.queue.put_back(entry)
        self.breaker.withdraw()
        self.admission.start(-1)

    def next_at(self, now: float) -> float | None:
        """Return when to look again without another event; ``None`` if only an event can change anything."""
        at = min(self.breaker.suspects.next_retry_at, self.admission.next_at(now))
        return at if at < inf else None

    # ---------------------------------------------------------------- verdicts

    def finish(self, entry: Entry, outcome: Outcome, started_at: float) -> None:
        """Rule on one entry whose attempt has ended."""
        entry = self.queue.under_way.pop(entry)
        if outcome is TAKEN:
            self.health.taken_at = started_at
            if self.breaker.is_clear:
                self.breaker.rate.taken += 1
                self.queue.decide(entry, DELIVERED)
                return
        self._rule(entry, outcome, started_at)

    def finish_batch(self, batch: Sequence[Entry], outcomes: Outcome | Sequence[Outcome], started_at: float) -> None:
        """Rule on entries that were sent together.

        Args:
            batch: The entries, each under way until it is ruled on here.
            outcomes: One for each entry in the batch's order, or one for all. A common outcome that blames no message
                holds for all. After any other common outcome the entries are sent again one by one, so that a bad
                message does not affect the rest.
            started_at: When the attempt began.
        """
        if isinstance(outcomes, Outcome) and (outcomes is TAKEN or outcomes.kind in FOR_ALL):
            outcomes = [outcomes] * len(batch)
        if not isinstance(outcomes, Outcome):
            for entry, outcome in zip(batch, outcomes, strict=True):
                self.finish(entry, outcome, started_at)
            return
        for entry in reversed(batch):  # reversed, because each goes to the front
            self.queue.put_back(entry).alone = True
        self.announce()

    def _rule(self, entry: Entry, outcome: Outcome, started_at: float) -> None:
        now, breaker = self._clock(), self.breaker
        if outcome is not TAKEN:
            self.health.failed(outcome.reason, now)
            self._on_failure(outcome.reason)
        before = breaker.condition, breaker.until
        ruling = breaker.judge(entry, outcome, started_at, now, others=len(self.queue.startable))
        if outcome is TAKEN:
            self._failed_types.clear()
        elif breaker.is_in_doubt:
            self._failed_types.add(entry.type)
        if not any(ruled is entry for ruled, _ in ruling):
            self.queue.suspect(entry)
        self._carry_out(ruling)
        if not self.queue.startable and not self.queue.under_way and breaker.suspects:
            self._carry_out(breaker.suspects.rule_alone())
        if (breaker.condition, breaker.until) != before:
            self.health.turned(before[0], now)
            self._shrink()
        self.announce()

    def _carry_out(self, ruling: Ruling[Entry]) -> None:
        for entry, verdict in ruling:
            if verdict is None:
                self.queue.retry(entry)
            else:
                self.queue.decide(entry, verdict)
        if self.queue.startable.again:
            self._forget_all(self.queue.overflow())

    # ------------------------------------------------------------- other relays

    def follow(self, shared_state: SharedState, asked_at: float, *, alone: bool) -> None:
        """Apply the shared state of this destination, as of `asked_at`."""
        self._apply(self.health.follow(shared_state, asked_at, self._clock(), alone=alone))

    def answer(self, claimed: bool, shared_state: SharedState, asked_at: float) -> None:
        """Apply the answer: this relay probes for all relays, or it waits this long for the relay that does."""
        self._apply(self.health.answer(claimed, shared_state, asked_at))

    def _apply(self, ruling: Ruling[Entry]) -> None:
        self._carry_out(ruling)
        self._shrink()
        self.announce()

    def _shrink(self) -> None:
        """Keep only entries for probes while the destination takes no messages and other destinations need the room."""
        if self.has_siblings and self.breaker.condition != "closed":
            self._forget_all(self.queue.park_down_to_reserve())

    # ------------------------------------------------------------- letting go

    @property
    def is_at_rest(self) -> bool:
        """Whether no attempt is under way or can start before some time has passed."""
        return not self.queue.under_way and not (self.queue.startable and self.takes_messages)

    def evict(self, belongs: Callable[[Entry], bool]) -> list[Entry]:
        """Release the entries that `belongs` selects and are not under way; see `DeliveryQueue.evict`."""
        return self._forget_all(self.queue.evict(belongs))

    def park(self, belongs: Callable[[Entry], bool]) -> None:
        """Put the selected entries that are not under way, and those behind them, back into the table."""
        self._forget_all(self.queue.park(belongs))

    def hand_over(self, entry: Entry) -> Entry | None:
        """Separate an entry that is under way from its other destinations; return its replacement."""
        rest = entry.rest_for(self)
        if not self.queue.hand_over(entry, rest):
            return None
        self.breaker.suspects.replace(entry, rest)
        return rest

    def _forget_all(self, entries: list[Entry]) -> list[Entry]:
        if entries and self.breaker.suspects:
            for entry in entries:
                self.breaker.suspects.forget(entry)
        return entries
