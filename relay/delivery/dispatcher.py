"""From pages to lanes: which destinations want a message, and what is still open. Runs on the event loop."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic

from outbox.tables import SHARD_COUNT
from relay.decide.standing import Finding, Standing
from relay.decide.subscription import wants
from relay.decide.verdict import BEHIND, BLOCKED, PARKED
from relay.delivery.crash_guard import CrashGuard
from relay.delivery.entry import Entry
from relay.delivery.lane import Lane
from relay.delivery.rate_limit import Claim
from relay.observe.metrics import Metrics
from relay.store.contract import Page, Pair, Row

SAMPLES_PER_BATCH = 16  # of the latencies of what was settled together
SETTLE_AT = 250  # verdicts that are worth a round trip of their own


class Dispatcher:
    """Everything this relay has read and not settled.

    Args:
        lanes: The destinations.
        subscriptions: Destination → the event types it wants, globs allowed.
        window: Entries held unsettled at most.
        owns: Whether this relay knows, at this time, that it owns what it holds.
        metrics: Where verdicts are counted, by the batch.
        on_work: Called when there is something to settle; may be called often.
        clock: The time, in seconds.

    Attributes:
        skipping: The destinations whose dead letters do not hold their successors up.
        done: Plain entries, taken by every destination; the owning thread takes them from the left.
        ruled: Entries with another verdict, in the order of their completion; likewise.
        unrouted: Entries that no subscription wants; likewise.
        findings: What became of destinations, for people and the other relays to see; likewise.
        probes: Destinations that a lane would like to probe, for all relays; likewise.
        claims: What lanes ask of the budgets that all relays share; likewise.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        subscriptions: Mapping[str, Sequence[str]],
        *,
        window: int,
        owns: Callable[[float], bool],
        metrics: Metrics,
        on_work: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.lanes = {lane.name: lane for lane in lanes}
        self.skipping = [lane.name for lane in lanes if lane.on_dead == "skip"]
        self.done: deque[Entry] = deque()
        self.ruled: deque[Entry] = deque()
        self.unrouted: deque[Entry] = deque()
        self.findings: deque[Finding] = deque()
        self.probes: deque[str] = deque()
        self.claims: deque[Claim] = deque()
        self.crash_guard = CrashGuard(self.lanes, window=window, owns=owns, on_work=on_work, clock=clock)
        self._subscriptions = subscriptions
        self._window = max(window, 2 * len(lanes))  # each keeps two entries, even one that is down
        self._settle_at = min(SETTLE_AT, max(window // 4, 1))
        self._metrics = metrics
        self._on_work = on_work
        self._held: dict[tuple[str, str | None], Entry] = {}
        self._routes: dict[str, tuple[Lane, ...]] = {}
        self._count = [0] * SHARD_COUNT
        self._epoch = 0
        self._settling_count = 0
        self._is_ending = False
        self._pages_accepted = 0
        self.delivered_count = 0
        self._partly_delivered_count = 0

    # ------------------------------------------------------------- coming in

    def room(self, page_size: int) -> int:
        """How many messages to read next: none while every lane that takes anything is full."""
        set_back = sum(lane.queue.set_back.count for lane in self.lanes.values())  # it has a room of its own
        free = self._window - len(self._held) + set_back
        wants = max((lane.wants for lane in self.lanes.values()), default=self._window)
        return max(min(free, wants, page_size), 0)

    @property
    def has_verdicts(self) -> bool:
        return bool(self.done or self.ruled or self.unrouted)

    @property
    def wants_settling(self) -> bool:
        """Whether to settle now, and not with the next short poll: something waits for it, or it is worth a turn."""
        return bool(self.crash_guard.notes) or len(self.done) + len(self.ruled) >= self._settle_at

    @property
    def is_settling(self) -> bool:
        """Whether anything is decided, or found out about a destination, and not yet known to be written."""
        return self._settling_count > 0 or bool(self.findings)

    @property
    def is_empty(self) -> bool:
        return not self._held

    @property
    def is_closed(self) -> bool:
        """Whether no destination takes anything now."""
        return not any(lane.takes_messages for lane in self.lanes.values())

    def pages_accepted(self, epoch: int) -> int:
        """How many pages of this session have arrived."""
        return self._pages_accepted if epoch == self._epoch else 0

    def accept(self, page: Page, epoch: int) -> None:
        """Hand a page to the lanes."""
        if epoch != self._epoch:
            return
        self._pages_accepted += 1
        if self._is_ending:
            return
        for row in page.deliveries:
            self._accept_delivery(row, page.blocked)
        fresh = [row[4] for row in page.messages if self._accept_message(row, page.held)]
        if fresh:
            self._metrics.emitted(Counter(fresh))
        for lane in self.lanes.values():
            lane.announce()
        if self.ruled or self.unrouted:
            self._on_work()

    def _accept_message(self, row: Row, held: Mapping[tuple[str, str], int]) -> bool:
        """Take in a message; false for one that is held already."""
        handle = (row[0], None)
        if handle in self._held:
            return False
        lanes = self._lanes_for(row[4])
        entry = self._hold(Entry(row, lanes, self._epoch))
        if not lanes:
            self._settling_count += 1
            self.unrouted.append(entry)
            return True
        for lane in lanes:
            if self._set_aside_if_accused(entry, lane):
                continue
            lane.accept(entry, held.get((lane.name, row[7])) if held else None)
        return True

    def _accept_delivery(self, row: Row, blocked: Mapping[Pair, int]) -> None:
        lane = self.lanes.get(row[14])
        handle = (row[0], row[14])
        if lane is None or handle in self._held or (row[0], None) in self._held:
            return
        entry = self._hold(Entry.of_delivery(row, lane, self._epoch))
        before = blocked.get((lane.name, row[7]))
        if lane.queue.is_held(entry, before) or not self._set_aside_if_accused(entry, lane):
            lane.accept_back(entry, before)

    def _set_aside_if_accused(self, entry: Entry, lane: Lane) -> bool:
        """Set it aside if relays have died of it, perhaps; whether it was."""
        verdict = self.crash_guard.verdict(entry, lane) if self.crash_guard.is_needed else None
        if verdict is not None:
            lane.set_aside(entry, verdict)
        return verdict is not None

    def _hold(self, entry: Entry) -> Entry:
        self._held[entry.handle] = entry
        self._count[entry.shard] += 1
        if self.crash_guard.is_needed:
            self.crash_guard.look_at(entry)
        return entry

    def _drop(self, entry: Entry) -> None:
        if self._held.pop(entry.handle, None) is not None:
            self._count[entry.shard] -= 1

    def _lanes_for(self, event_type: str) -> tuple[Lane, ...]:
        lanes = self._routes.get(event_type)
        if lanes is None:
            lanes = tuple(lane for name, lane in self.lanes.items() if wants(self._subscriptions[name], event_type))
            if len(self._routes) > 10_000:  # event types are few, unless somebody makes them up as they go
                self._routes.clear()
            self._routes[event_type] = lanes
        return lanes

    # -------------------------------------------------------------- going out

    def complete(self, entry: Entry) -> None:
        """All verdicts of an entry are in: the owning thread settles it."""
        self._settling_count += 1
        if entry.is_plain:
            self.done.append(entry)
        else:
            self._note_what_is_still_before(entry)
            self.ruled.append(entry)
        self._on_work()

    @staticmethod
    def _note_what_is_still_before(entry: Entry) -> None:
        """What it waits behind at one destination may have been settled while another had it under way.

        Then nobody is left to let it go, and the table has to be asked whether its turn has come.
        """
        for lane in entry.lanes:
            if entry.verdicts and entry.verdict_of(lane.name) is BEHIND and not lane.queue.has_in_memory(entry.key):
                entry.verdicts[lane.name] = BLOCKED

    def forget(self, entries: Collection[Entry]) -> None:
        """They are settled: the database knows, so memory need not."""
        self._settling_count -= len(entries)
        for entry in entries:
            self._drop(entry)
            if entry.verdicts is None and entry.lanes:
                self.delivered_count += 1
            elif _was_taken_by_any(entry):
                self._partly_delivered_count += 1
            if not entry.is_plain:
                for lane in entry.lanes:
                    lane.forget(entry)
            if entry.guard is not None:
                entry.guard.forget(entry)
        self._count_verdicts(entries)

    def _count_verdicts(self, entries: Collection[Entry]) -> None:
        counts = Counter(entry.lanes for entry in entries if entry.verdicts is None)
        for lanes, count in counts.items():
            for lane in lanes:
                self._metrics.destination(lane.name).delivered(count)
        for entry in entries:
            if entry.verdicts is None:
                continue
            for lane in entry.lanes:  # not the verdicts: they leave out those who took it
                self._metrics.count(lane.name, entry.verdict_of(lane.name).state)
        taken = [entry for entry in entries if entry.verdicts is None and entry.lanes]
        sample = taken[:: max(len(taken) // SAMPLES_PER_BATCH, 1)]
        now = datetime.now(UTC)
        self._metrics.latencies([(now - e.message.created_at).total_seconds() for e in sample], len(taken))

    @property
    def held_count(self) -> int:
        """Messages and deliveries held unsettled."""
        return len(self._held)

    @property
    def partly_delivered_count(self) -> int:
        """Messages that some of their destinations took so far, and others did not; settled or not."""
        held = (entry for entry in self._held.values() if entry.is_partly_decided)
        return self._partly_delivered_count + sum(_was_taken_by_any(entry) for entry in held)

    # ------------------------------------------------------------- letting go

    @property
    def epoch(self) -> int:
        """The number of the session whose entries may be sent."""
        return self._epoch

    def begin(self, epoch: int) -> None:
        """A new session owns what it will take; nothing of the last one is under its control."""
        self._pages_accepted = 0
        self._epoch = self.crash_guard.epoch = epoch
        for lane in self.lanes.values():
            lane.epoch = epoch

    def end(self) -> None:
        """Take nothing more in: what was read and has not arrived yet would be let go of by nobody."""
        self._is_ending = True
        self.crash_guard.refuse()

    def let_go(self, shards: Collection[int]) -> None:
        """Let go of everything of these shards that is not under way.

        What a sibling destination took, or is taking, goes on to be settled; its other deliveries are parked.
        """
        self.crash_guard.refuse()
        wanted = set(shards)
        evicted: dict[tuple[str, str | None], list[Lane]] = {}
        for lane in self.lanes.values():
            for entry in lane.evict(lambda e: e.shard in wanted):
                evicted.setdefault(entry.handle, []).append(lane)
        for handle, lanes in evicted.items():
            entry = self._held[handle]
            if len(lanes) == len(entry.lanes):
                self._drop(entry)
                continue
            for lane in lanes:
                lane.set_aside(entry, PARKED)

    def split(self) -> None:
        """Settle what some destinations have decided and others have not come to for a beat.

        Those others get it back from the table, each in its own time; an attempt that is under way goes on. So no
        destination's verdict waits for another's.
        """
        for lane in self.lanes.values():
            lane.park(lambda entry: entry.lingers)
        for entry in list(self._held.values()):
            if entry.lingers and entry.is_partly_decided:
                self._part(entry)
            entry.lingers = entry.is_partly_decided

    def _part(self, entry: Entry) -> None:
        for lane in entry.lanes:
            rest = lane.hand_over(entry)
            if rest is not None:
                self._hold(rest)

    def count_in(self, shards: Collection[int]) -> int:
        """How many entries of these shards are unsettled."""
        return sum(self._count[shard] for shard in shards)

    def tell_time(self, offset_s: float) -> None:
        """Take in the database's clock: what to add to ours to have it, in seconds."""
        for lane in self.lanes.values():
            lane.clock_offset_s = offset_s

    def heed(self, standings: Mapping[str, Standing], asked_at: float, *, alone: bool) -> None:
        """What all relays, and operators, say of the destinations, as of `asked_at`."""
        for name, standing in standings.items():
            if name in self.lanes:
                self.lanes[name].heed(standing, asked_at, alone=alone)


def _was_taken_by_any(entry: Entry) -> bool:
    """Of an entry that has a verdict: whether not all of them are exceptions."""
    return len(entry.lanes) - entry.open > len(entry.verdicts or ())
