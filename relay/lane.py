"""One destination's lane: what waits for it in memory, and the workers that send it.

A lane holds at most `limit` entries. With an ordering key, one entry is under way and its successors wait in a chain;
when the head of a chain cannot be delivered now, the whole chain goes back to the table (**blocked**), head first, so
that the table never knows a successor without its predecessor. No task per message: a worker takes one entry after the
other, and sleeps when there is none.

A destination that takes batches gets, while it is healthy, as many entries at once as are waiting. Heads of chains are
all that waits in the queue, so no batch holds two of one key. What was part of a batch that was not taken goes alone
from then on: whose fault it was shows as it does for any other entry.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from time import monotonic

import structlog

from outbox import Message
from relay.decide.backoff import Policy
from relay.decide.blame import Blame
from relay.decide.outcome import TAKEN, Outcome, failed
from relay.decide.standing import Finding, Standing
from relay.decide.verdict import BEHIND, BLOCKED, DELIVERED, PARKED, Verdict
from relay.destinations.contract import BATCH_BYTES, BatchDestination, Destination
from relay.entry import Entry

log = structlog.get_logger("relay")

LOOK_AGAIN_S = 0.02  # while this relay does not know that it owns what it holds
TURN_S = 0.005  # a worker that never has to wait lets the others run this often
DOWN = ("paused", "throttled", "off")
NOBODYS_FAULT = ("unreachable", "throttled", "gone")
RESERVE = 8  # what a destination that is down keeps in memory, to probe with


class Lane:
    """What waits for one destination.

    Args:
        destination: Where it goes.
        policy: How patient its deliveries are.
        limit: Entries held in memory at most.
        on_dead: ``"block"`` or ``"skip"``: whether a dead letter holds its key's successors up.
        on_complete: Called with an entry when the last of its verdicts is in.
        on_finding: Called when it turns out that the destination is down, or is not.
        on_probe: Called with the name when it is time to probe it; `answer` says whether this relay may.
        may_send: Whether this relay knows that it owns what it holds.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        policy: Policy,
        limit: int,
        on_dead: str,
        on_complete: Callable[[Entry], None],
        on_finding: Callable[[Finding], None],
        on_probe: Callable[[str], None],
        may_send: Callable[[float], bool],
    ) -> None:
        self.name = destination.name
        self.destination = destination
        batches = destination if isinstance(destination, BatchDestination) else None
        self._batches = batches if batches is not None and batches.batch_size > 1 else None
        self.limit = limit
        self.on_dead = on_dead
        self.blame: Blame[Entry] = Blame(policy)
        self.size = 0
        self.stopped = False
        self.has_siblings = False
        self.operator_pause: str | None = None
        self._resumed_at: str | None = None
        self._is_alone = True  # no other relay has a say
        self._joined = False  # the pause that holds here is one that all relays know of
        self._may_probe = self._claimed = self._asked = False  # a probe, and for all relays
        self._taken_at = -1e9  # when the latest attempt that was taken began
        self.held_keys: Counter[str] = Counter()  # key → entries of it that were set aside and are not settled yet
        self.epoch: int | None = None  # of the session that owns now: what another one read is not sent any more
        self._queue: deque[Entry] = deque()
        self._chains: dict[str, deque[Entry]] = {}
        self._under_way: dict[tuple[str, str | None], Entry] = {}
        self._on_complete = on_complete
        self._on_finding = on_finding
        self._on_probe = on_probe
        self._may_send = may_send
        self._idle: list[asyncio.Future[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        self._probe_newest = False
        self._turn_ends = 0.0

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        await self.destination.start()
        self._workers = [
            asyncio.create_task(self._work(), name=f"{self.name}-{i}") for i in range(self.destination.concurrency)
        ]

    async def finish(self, grace_s: float) -> None:
        """Start nothing more, and give what is under way its time."""
        self.stopped = True
        self.wake()
        if self._workers:
            _done, late = await asyncio.wait(self._workers, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)

    def heed(self, standing: Standing, asked_at: float, *, alone: bool) -> None:
        """What all relays, and operators, say of this destination, as of `asked_at`."""
        self._is_alone = alone
        self._pause(standing.reason if standing.paused_by == "operator" else None)
        self._note_resumed(standing.resumed_at)
        if asked_at < self.blame.since:
            return  # what has happened here since is newer
        if not standing.is_down:
            if self._joined:
                self._resume(tell=False)
        elif standing.state != "paused":
            self._join(standing, asked_at)
        elif standing.is_disputed_by(asked_at - self._taken_at):
            self._on_finding(Finding(self.name, "healthy", disputes=True))
        elif not alone and not (self.blame.condition == "healthy" and standing.is_fresh):
            self._join(standing, asked_at)

    def _join(self, standing: Standing, asked_at: float) -> None:
        """It is down, as all relays know; where this one knew already, only the waits are theirs."""
        self._joined = True
        blame = self.blame
        if blame.condition == standing.state and not blame.is_open:
            if not blame.probing and not self._may_probe and standing.wait_s is not None:
                blame.pauses, blame.until = max(blame.pauses, standing.pauses), asked_at + standing.wait_s
            return
        before = blame.condition
        self._carry_out(blame.adopt(standing, asked_at))
        if before not in DOWN or blame.condition != before:
            log.warning(f"destination_{blame.condition}", destination=self.name, reason=blame.reason)
            if self.has_siblings:
                self.park_waiting()

    def answer(self, claimed: bool, standing: Standing, asked_at: float) -> None:
        """Whether this relay probes for all of them, or how long to wait for the one that does."""
        self._asked = False
        if self.blame.condition == "paused":
            self._claimed = claimed
            self._may_probe = claimed or not standing.is_down
            if not self._may_probe:
                self._join(standing, asked_at)
        self.wake()

    def _pause(self, reason: str | None) -> None:
        """By an operator; ``None`` resumes."""
        if reason != self.operator_pause:
            self.operator_pause = reason
            log.warning("destination_paused_by_operator", destination=self.name, reason=reason) if reason else log.info(
                "destination_resumed", destination=self.name
            )
            self.wake()

    def _note_resumed(self, at: str | None) -> None:
        """When an operator resumed it the last time; if that is news, forget what it was down for."""
        known, self._resumed_at = self._resumed_at, at
        if known != at and self.blame.condition != "healthy":
            self._resume()

    def _resume(self, *, tell: bool = True) -> None:
        now, before = monotonic(), self.blame.condition
        self._carry_out(self.blame.resume(now))
        self._turned(before, now, tell=tell)
        self.wake()

    # ------------------------------------------------------------- coming in

    @property
    def is_open(self) -> bool:
        """Whether it takes whatever comes, as far as anybody knows."""
        return self.operator_pause is None and self.blame.condition == "healthy"

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing happens here, nor will before some time has passed."""
        return not self._under_way and (
            not self.size or self.operator_pause is not None or self.blame.condition in DOWN
        )

    @property
    def wants(self) -> int:
        """How many more entries it has room for."""
        return max((self.limit if self.is_open else RESERVE) - self.size, 0)

    def offer(self, entry: Entry) -> None:
        """Take an entry in, behind the others of its key."""
        self.size += 1
        key = entry.key
        if key is not None:
            chain = self._chains.get(key)
            if chain is not None:
                chain.append(entry)
                return
            self._chains[key] = deque()
        self._queue.append(entry)

    def take_in_or_turn_away(self, entry: Entry, *, held: bool) -> None:
        """Take a newcomer in, if there is room and nothing before it waits in the table.

        Args:
            entry: The newcomer.
            held: Whether the table holds an earlier message of its key that is not done.
        """
        chain = self._chains.get(entry.key) if entry.key is not None else None
        if held or entry.key in self.held_keys or (chain is not None and len(chain) >= self.limit // 4):
            if chain is not None:
                self._let_tail_release(entry.key, chain)
            self.turn_away(entry, BLOCKED if chain is None else BEHIND)
        elif not self.has_siblings or self.wants:  # an only destination is read while it has room, and no longer
            self.offer(entry)
        else:
            self.turn_away(entry, PARKED)

    def turn_away(self, entry: Entry, verdict: Verdict) -> None:
        """Set an entry aside that was never taken in; its key's successors must queue behind it."""
        if entry.key is not None and not self._frees(verdict):
            self.held_keys[entry.key] += 1
        if entry.decide(self, verdict):
            self._on_complete(entry)

    def forget(self, entry: Entry) -> None:
        """It is settled: if it was set aside, the table knows now that its key is held."""
        key = entry.key
        if key is None or self._frees(entry.verdict_of(self)):
            return
        self.held_keys[key] -= 1
        if self.held_keys[key] <= 0:
            del self.held_keys[key]

    def has_in_memory(self, key: str | None) -> bool:
        """Whether anything of this key is here, under way or waiting."""
        return key in self._chains

    def _frees(self, verdict: Verdict) -> bool:
        """Whether the next of the key may go."""
        return verdict is DELIVERED or (verdict.state == "dead" and self.on_dead == "skip")

    def _let_tail_release(self, key: str | None, chain: deque[Entry]) -> None:
        """What waits in the table behind a chain in memory is let go when the last of the chain is settled."""
        tail = chain[-1] if chain else next((e for e in self._heads() if e.key == key), None)
        if tail is not None:
            tail.releases = True

    def _heads(self) -> list[Entry]:
        return [*self._under_way.values(), *self._queue, *(s.delivery for s in self.blame.suspects)]

    def wake(self) -> None:
        """Let the workers see what has changed."""
        idle = self._idle
        for _ in range(len(idle) if self.stopped else min(len(idle), max(len(self._queue), 1))):
            waiter = idle.pop()
            if not waiter.done():
                waiter.set_result(None)

    # -------------------------------------------------------------- going out

    async def _work(self) -> None:
        while not self.stopped:
            now = monotonic()
            if now > self._turn_ends:
                await asyncio.sleep(0)
                self._turn_ends = monotonic() + TURN_S
                continue  # it may have been stopped in the meantime
            entry = self._next(now)
            if entry is None:
                await self._sleep(now)
                continue
            if self._batches is not None and (others := self._companions(self._batches, entry)):
                await self._send_together(self._batches, [entry, *others], now)
                continue
            if entry.caution is not None:
                if not await entry.caution.permit(self.name, entry):
                    self._put_back(entry)
                    continue
                now = monotonic()
            outcome = await self._attempt(entry.message)
            del self._under_way[entry.handle]
            if entry.caution is not None:
                entry.caution.survived(self.name, entry)
            self._rule(entry, outcome, now)

    def _put_back(self, entry: Entry) -> None:
        """It was to be sent, and may not be now."""
        del self._under_way[entry.handle]
        self._queue.appendleft(entry)
        self.blame.withdraw()

    def _next(self, now: float) -> Entry | None:
        blame = self.blame
        if not self._queue and blame.suspects:
            self._queue.extend(blame.take_back(now))
        if not self._queue or self.operator_pause or not self._may_send(now):
            return None
        if blame.condition == "throttled" and blame.may_start(now):
            self._turned("throttled", now)
        if blame.condition == "healthy":
            entry = self._pick(newest=False)
        elif blame.may_start(now) and self._is_mine_to_probe():
            self._probe_newest = not self._probe_newest
            entry = self._pick(newest=self._probe_newest)
            if entry is not None:
                blame.start()
        else:
            return None
        if entry is not None:
            self._under_way[entry.handle] = entry
        return entry

    def _is_mine_to_probe(self) -> bool:
        """A destination that is down is probed by one relay for all of them."""
        if self.blame.condition != "paused" or self.blame.is_open or self._is_alone or self._may_probe:
            return True
        if not self._asked:
            self._asked = True
            self._on_probe(self.name)
        return False

    def _pick(self, *, newest: bool) -> Entry | None:
        """The next that may be sent: what was under way when its session ended, and failed since, is read again."""
        while self._queue:
            entry = self._queue.pop() if newest else self._queue.popleft()
            if self.epoch is None or entry.epoch == self.epoch:
                return entry
            self._decide(entry, PARKED)
        return None

    async def _attempt(self, message: Message) -> Outcome:
        try:
            return await self.destination.send(message)
        except Exception as error:
            return self._broke(message, error)

    def _broke(self, message: Message, error: Exception) -> Outcome:
        log.error("destination_broke", destination=self.name, message_id=message.id, exc_info=error)
        return failed(f"{type(error).__name__}: {error}")

    def _companions(self, destination: BatchDestination, first: Entry) -> list[Entry]:
        """Whatever else is waiting and may go in one batch with the first; it is under way from here on."""
        if self.blame.condition != "healthy" or not _may_share(destination, first):
            return []
        room_bytes = BATCH_BYTES - len(first.message.body)
        found: list[Entry] = []
        while self._queue and len(found) < destination.batch_size - 1:
            entry = self._queue[0]
            if entry.epoch != first.epoch:
                break
            room_bytes -= len(entry.message.body)
            if room_bytes < 0 or not _may_share(destination, entry):
                break
            found.append(self._queue.popleft())
            self._under_way[entry.handle] = entry
        return found

    async def _send_together(self, destination: BatchDestination, batch: list[Entry], now: float) -> None:
        try:
            outcome = await destination.send_many([entry.message for entry in batch])
        except Exception as error:
            outcome = self._broke(batch[0].message, error)
        for entry in batch:
            del self._under_way[entry.handle]
        if outcome is TAKEN:
            for entry in batch:
                self._rule(entry, outcome, now)
            return
        # From the last to the first, because each of them goes back to the front.
        for entry in reversed(batch):
            if outcome.kind in NOBODYS_FAULT:
                self._rule(entry, outcome, now)
            else:
                entry.alone = True
                self._queue.appendleft(entry)
        self.wake()

    async def _sleep(self, now: float) -> None:
        """Until something comes; when there is something that must wait, until its time."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._idle.append(waiter)
        alarm = None
        if (seconds := self._alarm_s(now)) is not None:
            alarm = loop.call_later(seconds, _ring, waiter)
        try:
            await waiter
        finally:
            if alarm is not None:
                alarm.cancel()
            if waiter in self._idle:
                self._idle.remove(waiter)

    def _alarm_s(self, now: float) -> float | None:
        """How long to sleep at most while something waits here; ``None`` if whatever ends the wait rings by itself."""
        if not (self._queue or self.blame.suspects) or self.operator_pause is not None:
            return None
        if self.blame.condition in ("paused", "throttled") and self.blame.until > now:
            return self.blame.until - now
        if self.blame.condition == "healthy":
            return LOOK_AGAIN_S  # until this relay knows again that it owns what it holds: nobody rings for that
        return None if self._under_way or self._asked or self.blame.condition == "off" else LOOK_AGAIN_S

    # ---------------------------------------------------------------- verdicts

    def _rule(self, entry: Entry, outcome: Outcome, started_at: float) -> None:
        if outcome is TAKEN:
            self._taken_at = started_at
            if self.blame.condition == "healthy":
                self._decide(entry, DELIVERED)
                return
        now = monotonic()
        before = self.blame.condition, self.blame.until
        self._carry_out(self.blame.judge(entry, outcome, started_at, now))
        if not self._queue and not self._under_way:
            self._carry_out(self.blame.exhausted(now))
        if (self.blame.condition, self.blame.until) != before:
            self._turned(before[0], now)
        self.wake()

    def _carry_out(self, ruling: Iterable[tuple[Entry, Verdict | None]]) -> None:
        absolved = []
        for entry, verdict in ruling:
            if verdict is None:
                absolved.append(entry)
            else:
                self._decide(entry, verdict)
        for entry in sorted(absolved, key=lambda e: e.position, reverse=True):
            self._queue.appendleft(entry)

    def _decide(self, entry: Entry, verdict: Verdict) -> None:
        self.size -= 1
        if entry.decide(self, verdict):
            self._on_complete(entry)
        if entry.key is not None:
            self._advance(entry.key, verdict)

    def _advance(self, key: str, verdict: Verdict) -> None:
        """Let the next of the key go, or send all of them back to the table to wait."""
        chain = self._chains[key]
        if self._frees(verdict):
            if chain:
                self._queue.append(chain.popleft())
            else:
                del self._chains[key]
            return
        del self._chains[key]
        self.held_keys[key] += 1 + len(chain)
        for successor in chain:
            self.size -= 1
            if successor.decide(self, BLOCKED):
                self._on_complete(successor)

    def _turned(self, before: str, now: float, *, tell: bool = True) -> None:
        """Say what became of the destination; when it is down, keep only what it takes to probe it."""
        blame = self.blame
        is_probe = self._claimed or self._is_alone
        self._claimed = self._may_probe = self._joined = False
        if blame.condition in DOWN:
            if before not in DOWN:
                log.warning(f"destination_{blame.condition}", destination=self.name, reason=blame.reason)
            self._on_finding(self._finding(now, is_probe=is_probe))
            if self.has_siblings:
                self.park_waiting()
        elif before in DOWN:
            log.info("destination_resumed", destination=self.name)
            if tell:
                self._on_finding(Finding(self.name, "healthy", is_probe=is_probe))

    def _finding(self, now: float, *, is_probe: bool) -> Finding:
        blame = self.blame
        if blame.is_open:
            return Finding(self.name, "paused", f"{blame.reason} (new messages are tried at once)")
        wait_s = None if blame.condition == "off" else max(blame.until - now, 0.0)
        return Finding(self.name, blame.condition, blame.reason, wait_s, blame.pauses, is_probe=is_probe)

    # ------------------------------------------------------------- letting go

    def count_under_way(self) -> int:
        return len(self._under_way)

    def is_healthy(self) -> bool:
        return self.is_open

    @property
    def under_way(self) -> list[Entry]:
        """What is being attempted at this moment."""
        return list(self._under_way.values())

    def evict(self, belongs: Callable[[Entry], bool], verdict: Verdict | None = None) -> list[Entry]:
        """Let go of every entry that `belongs` and is not under way.

        Returns:
            The entries, without a verdict from this lane.
        """
        gone = [e for e in self._waiting() if belongs(e)]
        if not gone:
            return []
        out = {id(e) for e in gone}
        self._queue = deque(e for e in self._queue if id(e) not in out)
        self.blame.suspects = [s for s in self.blame.suspects if id(s.delivery) not in out]
        self._chains = self._rebuilt_chains(out)
        self.size -= len(gone)
        return gone

    def _waiting(self) -> list[Entry]:
        """What is here and not under way."""
        suspects = [s.delivery for s in self.blame.suspects]
        return [*self._queue, *suspects, *(e for chain in self._chains.values() for e in chain)]

    def _rebuilt_chains(self, out: set[int]) -> dict[str, deque[Entry]]:
        """Chains without the entries that left; a chain lives on while anything of its key does."""
        alive = {e.key for e in self._heads() if e.key is not None}
        chains: dict[str, deque[Entry]] = {}
        for key, chain in self._chains.items():
            rest = deque(e for e in chain if id(e) not in out)
            if key in alive or rest:
                chains[key] = rest
        return chains

    def park_waiting(self) -> None:
        """A destination that is down keeps a few entries to probe with; the rest goes back to the table."""
        queue = list(self._queue)
        keep = {id(e) for e in [*queue[: RESERVE // 2], *queue[-RESERVE // 2 :], *self._under_way.values()]}
        keep |= {id(s.delivery) for s in self.blame.suspects}
        kept_keys = {e.key for e in self._heads() if id(e) in keep and e.key is not None}
        self.park(lambda e: id(e) not in keep and e.key not in kept_keys)

    def park(self, belongs: Callable[[Entry], bool]) -> None:
        """Put every entry that `belongs` back into the table, and what waits with its key; not what is under way."""
        keys = {e.key for e in self._waiting() if e.key is not None and belongs(e)}
        for entry in sorted(self.evict(lambda e: e.key in keys or belongs(e)), key=lambda e: e.position):
            self.turn_away(entry, PARKED)


def _may_share(destination: BatchDestination, entry: Entry) -> bool:
    return not entry.alone and entry.caution is None and destination.may_share(entry.message)


def _ring(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
