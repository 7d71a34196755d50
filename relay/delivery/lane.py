"""One destination's lane: it chooses the next entry to send, and takes its outcome.

A lane only decides. It *has* a queue (the entries that wait, in their order), a circuit breaker (decides whose fault a
failure was), the shared health of the destination, and perhaps a rate limit. `relay.delivery.workers` sends the entry
that `next` returns, and gives its outcome to `finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

from relay.decide.backoff import Policy
from relay.decide.breaker import CircuitBreaker
from relay.decide.failures.doubt import place_in_doubt
from relay.decide.failures.suspects import Ruling
from relay.decide.outcome import TAKEN, Outcome
from relay.decide.shared_state import SharedState
from relay.decide.verdict import DELIVERED, Verdict, put_off
from relay.delivery.admission.admission import Admission
from relay.delivery.admission.validity import Validity
from relay.delivery.health import SharedHealth
from relay.delivery.queue import DeliveryQueue
from relay.seam import Entry
from relay.store.rows import Pair

FOR_ALL = ("unreachable", "throttled", "gone")  # outcomes that hold for every message of a batch


class Lane:
    """The lane of one destination; `relay.delivery.assembly` puts its parts together.

    Args:
        queue: The entries that wait, and their order.
        breaker: Decides whose fault a failure was.
        health: The shared health of the destination.
        admission: Whether an attempt may start now.
        validity: Whether an entry may still be sent.
        policy: Its limits of attempts and time, and its backoff.
        has_siblings: Whether there are other destinations.
        clock: The time, in seconds.
        on_ready: Called with how many attempts may start now.
        on_failure: Called with the reason of each attempt that failed.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        breaker: CircuitBreaker[Entry],
        health: SharedHealth,
        admission: Admission,
        validity: Validity,
        *,
        policy: Policy,
        has_siblings: bool,
        clock: Callable[[], float],
        on_ready: Callable[[int], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self.queue, self.breaker, self.health = queue, breaker, health
        self._admission, self.validity = admission, validity
        self.name, self.on_dead = queue.name, queue.on_dead
        self.policy, self.has_siblings = policy, has_siblings
        self._clock, self._on_ready, self._on_failure = clock, on_ready, on_failure
        self._doubted = 0  # attempts in a row that were made in doubt
        self._failed_types: set[str] = set()  # of messages that failed in doubt since one was taken

    # ------------------------------------------------------------- coming in

    @property
    def takes_messages(self) -> bool:
        """Whether the destination takes messages, as far as is known."""
        return self.health.takes_messages

    @property
    def wants(self) -> int:
        """How many more entries the lane has room for.

        A destination that is down leaves the room to the others. If it is the only one, reading goes on: a new message
        may show that it is back.
        """
        return self.queue.room(self.queue.limit if self.takes_messages or not self.has_siblings else self.queue.reserve)

    def accept_all(self, entries: Sequence[Entry], held: Mapping[Pair, int]) -> None:
        """Take new entries in their order; `held` has the lowest position of each key in the table."""
        has_room = not self.has_siblings or self.wants >= len(entries)
        if has_room and all(entry.key is None for entry in entries):
            self.queue.accept_all(entries)
            return
        for entry in entries:
            self.accept(entry, held.get((self.name, entry.key)) if entry.key is not None else None)

    def accept(self, entry: Entry, before: int | None) -> None:
        """Take a new entry, or set it aside; see `DeliveryQueue.accept`."""
        # For the only destination, reading stops when it has no room. If one of several is down, it also keeps the
        # newest entry: one that has not been tried may show that it is back.
        has_room = not self.has_siblings or self.wants > 0
        if has_room or self.takes_messages:
            self.queue.accept(entry, before=before, has_room=has_room)
            return
        self.queue.accept(entry, before=before, has_room=self._may_probe(entry))
        if len(self.queue.startable.fresh) > self.queue.reserve:
            self._park_down_to_reserve()

    def _may_probe(self, entry: Entry) -> bool:
        """Whether no earlier message of its key is in memory, for which it would have to wait."""
        return entry.key is None or self.queue.chains.of(entry.key) is None

    def accept_back(self, entry: Entry, before: int | None) -> None:
        """Take an entry that was read back from the table, or set it aside again."""
        is_retry = entry.attempts > 0 and self.takes_messages
        verdict = put_off(self.policy.ceiling_s(entry.attempts)) if is_retry else None
        self.queue.accept_back(entry, before=before, has_room=self.wants > 0, put_off=verdict)

    def set_aside(self, entry: Entry, verdict: Verdict) -> None:
        """Set an entry aside without trying it."""
        self.queue.set_aside(entry, verdict)

    def forget(self, entry: Entry) -> None:
        """Note that an entry is settled."""
        self.queue.forget(entry)

    def announce(self) -> None:
        """Wake workers: an entry may have become ready to be sent."""
        self._on_ready(len(self.queue.startable))

    # -------------------------------------------------------------- going out

    def next(self, now: float) -> Entry | None:
        """Return the next entry to be sent, which is under way from here on; ``None`` while nothing may start."""
        startable, breaker = self.queue.startable, self.breaker
        is_clear = breaker.is_clear
        if not is_clear and breaker.next_retry_at <= now:
            self._carry_out(breaker.rule_due(now))
        if not (startable.fresh or startable.again) or not self._admission.allows(now):
            return None
        if is_clear:
            return self._pick(now)
        self._doubted = self._doubted + 1 if breaker.is_in_doubt else 0
        entry = self._pick(now, place_in_doubt(self._doubted))
        if entry is not None:
            breaker.start()
        return entry

    def _pick(self, now: float, at: float | None = None) -> Entry | None:
        """Take the next entry that may still be sent; decide those before it that may not."""
        while (entry := self.queue.pick(at, self._failed_types)) is not None:
            verdict = self.validity.verdict(entry, now)
            if verdict is None:
                if self._admission.is_limited:
                    self._admission.start()
                return entry
            self.queue.end_attempt(entry)
            self.breaker.forget(entry)
            self.queue.decide(entry, verdict)
        return None

    def companions(self, may_follow: Callable[[Entry], bool], count: int, now: float) -> list[Entry]:
        """Return the entries that may go in one batch with that of `next`; they are under way from here on."""

        def may_start(entry: Entry) -> bool:
            return self.validity.verdict(entry, now) is None and may_follow(entry)

        found = self.queue.pick_more(may_start, self._admission.at_most(count, now))
        self._admission.start(len(found))
        return found

    def withdraw(self, entry: Entry) -> None:
        """Take back an entry that may not be sent any more."""
        self.queue.put_back(entry)
        self.breaker.withdraw()
        self._admission.withdraw()

    def next_at(self, now: float) -> float | None:
        """Return when to look again without another event; ``None`` if only an event can change anything."""
        at = min(self.breaker.next_retry_at, self._admission.next_at(now))
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
            outcomes: One for each of them in their order, or one for all. A common outcome that blames no message holds
                for all; after any other the entries are sent again one by one, so a bad message does not affect the
                others.
            started_at: When the attempt began.
        """
        if isinstance(outcomes, Outcome) and (outcomes is TAKEN or outcomes.kind in FOR_ALL):
            outcomes = [outcomes] * len(batch)
        if not isinstance(outcomes, Outcome):
            for entry, outcome in zip(batch, outcomes, strict=True):
                self.finish(entry, outcome, started_at)
            return
        for entry in reversed(batch):  # each goes to the front
            self.queue.put_back(entry).alone = True
        self.announce()

    def _rule(self, entry: Entry, outcome: Outcome, started_at: float) -> None:
        now, breaker = self._clock(), self.breaker
        if outcome is not TAKEN:
            self.health.note_failed(now)
            self._on_failure(outcome.reason)
        before = breaker.condition, breaker.until
        ruling = breaker.judge(entry, outcome, started_at, now, others=len(self.queue.startable))
        if outcome is TAKEN:
            self._failed_types.clear()
        elif breaker.is_in_doubt:
            self._failed_types.add(entry.message.type)
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
        """Apply the answer whether this relay probes for all relays, or how long to wait for the one that does."""
        self._apply(self.health.answer(claimed, shared_state, asked_at))

    def answer_claim(self, granted: int, wait_s: float, asked_at: float) -> None:
        """Add a share of the common rate budget; see `RateLimit.answer`."""
        self._admission.answer_claim(granted, wait_s, asked_at)
        self.announce()

    def _apply(self, ruling: Ruling[Entry]) -> None:
        self._carry_out(ruling)
        self._shrink()
        self.announce()

    def _shrink(self) -> None:
        """Keep only the entries for probes while the destination takes no messages and others need the room."""
        if self.has_siblings and self.breaker.condition != "closed":
            self._park_down_to_reserve()

    # ------------------------------------------------------------- letting go

    @property
    def is_at_rest(self) -> bool:
        """Whether no attempt is under way or can start before some time has passed."""
        return not self.queue.under_way and not (self.queue.startable and self.takes_messages)

    def evict(self, belongs: Callable[[Entry], bool]) -> list[Entry]:
        """Release the entries that `belongs` selects and are not under way; see `DeliveryQueue.evict`."""
        return self._forget_all(self.queue.evict(belongs))

    def park(self, belongs: Callable[[Entry], bool]) -> None:
        """Put the entries that `belongs` selects, if not under way, and those behind them back into the table."""
        self._forget_all(self.queue.park(belongs))

    def hand_over(self, entry: Entry) -> Entry | None:
        """Separate an entry, under way or a suspect, from its other destinations; return its replacement."""
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
