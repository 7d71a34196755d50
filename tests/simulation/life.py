"""One simulated life: one seed decides what is written, how the destinations behave, and what goes wrong.

Every quarter of a second, everything is compared with what is promised. Safety: nothing is lost, nothing is sent
before its predecessor, no two of one key at once. Liveness: what a destination would take is tried within `PATIENCE_S`
after its last obstacle is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from simulation.clock import Clock, VirtualLoop
from simulation.invariants import check_blocked, check_relay
from simulation.relay import TYPE, Knobs, Plan, SimRelay
from simulation.session import ModelSession
from simulation.store import Delivery, Destination, Message, Tables

from outbox import Message as Sent
from relay.decide.outcome import TAKEN, Outcome, failed, refused, throttled, unanswered, unreachable
from relay.delivery.admission import VALID_S

LOOK_S = 0.25
# Probes come every 2 s here, and a backlog is read within seconds. Other knobs may need more: a page of one message
# every 0.2 s takes 30 s for the 80 messages of a random script.
PATIENCE_S = 15.0
SETTLED_S = 3.0
AFTERWARDS_S = 60.0
LATE_S = 0.1
OFTEN, IN_S = 60, 10.0  # more attempts at one message in that time are hammering
TROUBLES = (failed("500"), unanswered("timeout"), unreachable("refused"), refused("422"), throttled("429", 1.0))


@dataclass
class Fate:
    """How one destination behaves.

    Args:
        down: Spans of time in which it fails everything, and how.
        share: The share of attempts that fail by chance.
        poison: Numbers of messages that it never takes, and how it fails them.
        latency_s: How long an attempt takes at most.
    """

    down: list[tuple[float, float, Outcome]] = field(default_factory=list)
    share: float = 0.0
    poison: dict[int, Outcome] = field(default_factory=dict)
    latency_s: float = 0.02

    def outcome(self, number: int, now: float, chance: random.Random) -> Outcome:
        for start, end, outcome in self.down:
            if start <= now < end:
                return outcome
        if number in self.poison:
            return self.poison[number]
        return failed("flaky") if chance.random() < self.share else TAKEN

    def is_up(self, now: float) -> bool:
        """Return whether the destination certainly takes what is no poison."""
        return not self.share and not any(start <= now < end for start, end, _ in self.down)


@dataclass
class Script:
    """What happens in a life."""

    plans: dict[str, Plan]
    fates: dict[str, Fate]
    emits: list[tuple[float, float, str | None, float]] = field(default_factory=list)  # at, commits at, key, delay
    events: list[tuple[float, str, Any]] = field(default_factory=list)  # at, what, with
    relays: int = 1
    until: float = 20.0
    miss: float = 0.0
    expires_s: float | None = None  # of every third message
    knobs: dict[str, Any] = field(default_factory=dict)


class Violation(AssertionError):
    """A promise is broken."""


class Life:
    """One life.

    Args:
        seed: Decides everything that the script leaves to chance.
        script: What happens.
    """

    def __init__(self, seed: int, script: Script) -> None:
        self.seed, self.script = seed, script
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.began_at = self.clock.now
        self.tables = Tables(self.clock, lambda _destination, _type: True)
        for plan in script.plans.values():
            self.tables.destinations[plan.name] = Destination(plan.name, plan.on_dead == "skip")
        self.relays: list[SimRelay] = []
        self.errors: list[BaseException] = []
        self.taken: set[tuple[str, str]] = set()
        self.under_way: defaultdict[tuple[str, str], list[tuple[SimRelay, ModelSession | None, str]]] = defaultdict(
            list
        )
        self.attempts: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.failures: Counter[tuple[str, str]] = Counter()
        self.committed: dict[str, Message] = {}
        self.of_key: defaultdict[str, list[Message]] = defaultdict(list)
        self.untaken: dict[tuple[str, str], Message] = {}  # what the checks have yet to see taken
        self.commit_order: dict[str, tuple[float, float]] = {}  # message → when it was emitted, and committed
        self.since: dict[tuple[str, str], float] = {}
        self.orphans: dict[tuple[str, str], float] = {}
        self.count = 0

    @property
    def now(self) -> float:
        return self.clock.now - self.began_at

    # ----------------------------------------------------------------- world

    async def send(self, relay: SimRelay, plan: Plan, messages: list[Sent]) -> Outcome | list[Outcome]:
        """Return what the destination does with an attempt."""
        fate = self.script.fates[plan.name]
        for message in messages:
            self._begin(relay, plan, message)
        self._check_rate(plan)
        await asyncio.sleep(fate.latency_s * (0.2 + 0.8 * self.chance.random()))
        outcomes = [fate.outcome(int(message.data["n"]), self.now, self.chance) for message in messages]
        is_whole = len(messages) == 1 or self.chance.random() < 0.5
        together = next((o for o in outcomes if o is not TAKEN), TAKEN)
        for message, outcome in zip(messages, outcomes, strict=True):
            self._end(relay, plan, message, together if is_whole else outcome)
        return together if is_whole else outcomes

    def _begin(self, relay: SimRelay, plan: Plan, message: Sent) -> None:
        what = message.id, plan.name
        if message.id not in self.committed:
            self._violate(f"ghost: {message.id} was sent and never committed")
        self._check_expiry(plan, message.id)
        times = self.attempts[what]
        times.append(self.now)
        if len(times) >= OFTEN and times[-1] - times[-OFTEN] < IN_S:
            self._violate(f"hammering: {message.id} was sent {OFTEN} times in {times[-1] - times[-OFTEN]:.1f} s")
        key = message.ordering_key
        if key is not None:
            self._check_order(relay, plan, message.id, key)
        self.under_way[plan.name, key or message.id].append((relay, relay.session, message.id))

    def _check_expiry(self, plan: Plan, id_: str) -> None:
        """Check that nothing is sent after its time, unless an operator has sent it again."""
        at, d = self.committed[id_].expires_at, self.tables.deliveries.get((id_, plan.name))
        if at is not None and self.clock.now > at + LATE_S and not (d is not None and d.generation):
            self._violate(f"expired: {id_} was sent to {plan.name} {self.clock.now - at:.2f} s after its time")

    def _check_rate(self, plan: Plan) -> None:
        """Check that in any time up to now, no more was started than a burst and the rate allow."""
        if plan.rate is None:
            return
        times = sorted(at for (_, name), found in self.attempts.items() if name == plan.name for at in found)
        for count, at in enumerate(reversed(times), 1):
            if count > plan.rate.burst + plan.rate.per_s * (self.now - at + VALID_S):
                self._violate(f"rate: {count} attempts at {plan.name} in {self.now - at:.2f} s")

    def _check_order(self, relay: SimRelay, plan: Plan, id_: str, key: str) -> None:
        for other, session, other_id in self.under_way[plan.name, key]:
            if other.is_alive and session is not None and not session.is_cut:
                self._violate(f"order: {other_id} and {id_} of {key} are under way at once to {plan.name}")
        emitted_at, _ = self.commit_order[id_]
        if self.committed[id_].due_at:
            return  # its place in the order is decided when it falls due
        for m in self.of_key[key]:
            if m.id != id_ and self.commit_order[m.id][1] < emitted_at and not m.due_at:
                what = m.id, plan.name
                if m.expires_at is not None and m.expires_at <= self.clock.now:
                    continue  # it may be decided already, and not be written yet
                is_over = what in self.taken or what in self.tables.passed
                if not is_over and not self.tables.is_done(m, plan.name):
                    self._violate(f"order: {id_} of {key} was sent to {plan.name} before {m.id}")

    def _violate(self, what: str) -> None:
        """Note the violation for the next check: raised here, it would count as a failure of the destination."""
        self.errors.append(Violation(f"{what} (at {self.now:.2f} s)"))

    def _end(self, relay: SimRelay, plan: Plan, message: Sent, outcome: Outcome) -> None:
        place = self.under_way[plan.name, message.ordering_key or message.id]
        place.remove(next(each for each in place if each[0] is relay and each[2] == message.id))
        what = message.id, plan.name
        if outcome is TAKEN:
            self.taken.add(what)
            return
        self.failures[what] += 1
        if plan.on_dead == "skip" and (outcome.kind == "refused" or self.failures[what] >= plan.max_attempts):
            self.tables.passed.add(what)  # it may be decided already, and not be written yet

    # ---------------------------------------------------------------- script

    async def _emit(self) -> None:
        pending: list[tuple[float, int, Message]] = []
        todo = sorted(self.script.emits, key=lambda e: e[:2])
        while todo or pending:
            at = min([todo[0][0]] if todo else [], default=1e9)
            commit_at = min((p[0] for p in pending), default=1e9)
            await self._until(min(at, commit_at))
            if todo and at <= commit_at:
                _, committed_at, key, delay_s = todo.pop(0)
                pending.append((committed_at, self.count, self._message(key, delay_s)))
                pending.sort(key=lambda p: p[:2])
            else:
                self._commit(pending.pop(0)[2])

    def _message(self, key: str | None, delay_s: float) -> Message:
        number, self.count = self.count, self.count + 1
        shard = sum(map(ord, key)) % 64 if key is not None else number % 64
        m = Message(f"m{number}", number, self.tables.next_position(), shard, TYPE, key, self.clock.now)
        if delay_s:
            m.state, m.due_at = "scheduled", self.clock.now + delay_s
        if self.script.expires_s and number % 3 == 0:
            m.expires_at = max(m.due_at, self.clock.now) + self.script.expires_s
        self.commit_order[m.id] = self.now, 1e9
        return m

    def _commit(self, m: Message) -> None:
        m.tx = self.tables.commit()
        self.tables.messages[m.id] = self.committed[m.id] = m
        self.commit_order[m.id] = self.commit_order[m.id][0], self.now
        self.untaken |= {(m.id, name): m for name in self.script.plans}
        if m.key is not None:
            self.of_key[m.key].append(m)

    async def _direct(self) -> None:
        for at, what, argument in sorted(self.script.events, key=lambda e: e[0]):
            await self._until(at)
            await getattr(self, f"_{what}")(argument)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(at - self.now, 0.0))

    async def _start(self, _: Any = None) -> None:
        relay = SimRelay(
            f"relay-{len(self.relays)}",
            Knobs(self.script.plans, **self.script.knobs),
            self.clock,
            self.chance,
            open_session=self._open_session,
            send=self.send,
            on_failure=self.errors.append,
        )
        self.relays.append(relay)
        await relay.start()

    def _open_session(self, relay_id: str) -> ModelSession:
        return ModelSession(self.tables, relay_id, self.chance, settled_s=SETTLED_S, miss=self.script.miss)

    @property
    def alive(self) -> list[SimRelay]:
        return [r for r in self.relays if r.is_alive and not r.is_stopping]

    async def _kill(self, which: int) -> None:
        if self.alive:
            self.alive[which % len(self.alive)].kill()

    async def _stop(self, which: int) -> None:
        if self.alive:
            await self.alive[which % len(self.alive)].stop()

    async def _cut(self, which: int) -> None:
        if self.alive and (session := self.alive[which % len(self.alive)].session) is not None:
            session.cut()

    async def _pause(self, name: str) -> None:
        d = self.tables.destinations[name]
        d.state, d.paused_by, d.reason, d.until, d.changed_at = "paused", "operator", "lunch", None, self.clock.now

    async def _resume(self, name: str) -> None:
        d = self.tables.destinations[name]
        d.state, d.paused_by, d.reason, d.until, d.changed_at = "healthy", None, None, None, self.clock.now
        d.resumed_at = self.clock.now

    async def _retry_dead(self, _: Any) -> None:
        for d in self.tables.deliveries.values():
            if d.state == "dead":
                self._by_operator(d, "parked")
                d.attempts = 0

    async def _discard_dead(self, name: str) -> None:
        for d in self.tables.deliveries.values():
            if d.state == "dead" and d.destination == name:
                self._by_operator(d, "discarded")

    def _by_operator(self, d: Delivery, state: str) -> None:
        self.tables.change(d, state, None)
        d.generation += 1

    # ----------------------------------------------------------------- looks

    async def _watch(self, until: float) -> None:
        while self.now < until:
            self._look()
            await asyncio.sleep(LOOK_S)

    def _look(self) -> None:
        if self.errors:
            raise Violation(f"{self.errors[0]!r}") from self.errors[0]
        for relay in self.relays:
            if relay.is_alive:
                for wrong in check_relay(relay):
                    raise Violation(f"{relay.id}: {wrong}")
        self._look_for_orphans()
        for what in [
            each for each, m in self.untaken.items() if each in self.taken or m.id not in self.tables.messages
        ]:
            del self.untaken[what]
        open_ = {name for name in self.script.plans if self._is_open(name)}
        undone = self._undone()
        for what, m in self.untaken.items():
            if what[1] in open_ and self._is_deliverable(m, what[1], undone):
                self._look_at(m, what)
            else:
                self.since[what] = self.now

    def _look_for_orphans(self) -> None:
        found = dict(check_blocked(self.tables)) if self.alive else {}  # without a relay, no delay is a fault
        self.orphans = {what: self.orphans.get(what, self.now) for what in found}
        for what, since in self.orphans.items():
            if self.now - since > PATIENCE_S:
                raise Violation(f"liveness: {found[what]}, for {self.now - since:.0f} s")

    def _look_at(self, m: Message, what: tuple[str, str]) -> None:
        name, last = what[1], self.attempts[what][-1] if self.attempts[what] else 0.0
        waited_s = self.now - max(self.since.setdefault(what, self.now), last)
        if waited_s > PATIENCE_S:
            raise Violation(
                f"liveness: {name} would take {m.number} ({m.key}) for {waited_s:.0f} s: {self._tell(what)}"
            )

    def _is_open(self, name: str) -> bool:
        destination = self.tables.destinations[name]
        is_kept_from = destination.paused_by == "operator" or destination.state in ("throttled", "off")
        return bool(self.alive) and not is_kept_from and self.script.fates[name].is_up(self.now)

    def _undone(self) -> dict[tuple[str, str], list[int]]:
        """(key, destination) → the positions of what is neither done nor taken there, from the earliest."""
        found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for (_, name), m in self.untaken.items():
            if m.key is not None and not self.tables.is_done(m, name):
                found[m.key, name].append(m.position)
        return {where: sorted(positions) for where, positions in found.items()}

    def _is_deliverable(self, m: Message, name: str, undone: dict[tuple[str, str], list[int]]) -> bool:
        """Return whether nothing speaks against sending it; of its key, all earlier ones must be done."""
        now, d = self.clock.now, self.tables.deliveries.get((m.id, name))
        if (d is not None and not self.tables.holds_up(d)) or m.number in self.script.fates[name].poison:
            return False
        if m.due_at > now or (m.expires_at is not None and m.expires_at <= now):
            return False
        if d is not None and (d.state == "dead" or (d.state == "retry" and d.due_at > now)):
            return False
        if m.key is None:
            return True
        others = undone[m.key, name]
        return others == [m.position] if m.due_at else others[0] == m.position

    def _tell(self, what: tuple[str, str]) -> str:
        row, d = self.tables.messages.get(what[0]), self.tables.deliveries.get(what)
        lanes = [
            f"{r.id} {lane.breaker.condition} fresh {len(queue.startable.fresh)} again {len(queue.startable.again)} "
            f"suspects {len(queue.suspects)} size {queue.size} under way {len(queue.under_way)}"
            for r in self.alive
            for lane in [r.dispatcher.lanes[what[1]]]
            for queue in [lane.queue]
        ]
        return f"{row and row.state}, {d and d.state}, {lanes}"

    # ------------------------------------------------------------------ life

    async def _live(self) -> None:
        for _ in range(self.script.relays):
            await self._start()
        watch = asyncio.create_task(self._watch(self.script.until))
        others = [asyncio.create_task(self._emit()), asyncio.create_task(self._direct())]
        await asyncio.gather(watch, *others)
        await self._heal()

    async def _heal(self) -> None:
        """Repair everything: from now on every message must be delivered in the end."""
        for name, fate in self.script.fates.items():
            fate.down, fate.share, fate.poison = [], 0.0, {}
            await self._resume(name)
        if not self.alive:
            await self._start()
        end = self.now + AFTERWARDS_S
        while self.tables.messages and self.now < end:
            self._look()
            await self._retry_dead(None)
            await asyncio.sleep(LOOK_S)
        if self.tables.messages:
            m = next(iter(self.tables.messages.values()))
            raise Violation(
                f"stuck: {len(self.tables.messages)} are left: {[self._tell((m.id, n)) for n in self.script.plans]}"
            )
        self._check_all_done()

    def _check_all_done(self) -> None:
        for m in self.committed.values():
            if m.id not in self.tables.history:
                raise Violation(f"loss: {m.id} is gone")

    def run(self) -> None:
        """Run the life to its end.

        Raises:
            Violation: A promise is broken.
        """
        loop, before = VirtualLoop(self.clock), random.getstate()
        random.seed(self.seed)
        try:
            loop.run_until_complete(self._live())
        finally:
            self._bury(loop)
            random.setstate(before)

    def _bury(self, loop: asyncio.AbstractEventLoop) -> None:
        for relay in self.relays:
            relay.kill()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
