"""Hand the messages of a page to the lanes of their destinations, and track unsettled entries, on the event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from relay.databases.store.rows import DATA, DESTINATION, ID, ORDERING_KEY, PAGE_BYTES, TYPE, Page, Pair, Row
from relay.decide.shared_state import SharedState
from relay.decide.subscription import wants
from relay.decide.verdict import PARKED
from relay.decide.window import Window
from relay.delivery.completion import Completion, was_taken_by_any
from relay.delivery.crashes.guard import CrashGuard
from relay.delivery.lane import Lane
from relay.observe.metrics import Metrics
from relay.seam import Entry, Handle, Lease, ToOwner, Withdrawn

ROUTES_KEPT = 10_000  # event types are few, unless a producer generates them
STALE = -1  # the epoch of an entry that must not be sent again
STOCK = 250  # this number of entries keeps a destination busy for a while


class Dispatcher:
    """The entries that this relay has read and not settled: `relay.seam.Delivery` and `relay.seam.DeliveryView`.

    Args:
        lanes: The destinations.
        completion: Takes entries that have all their verdicts.
        crash_guard: Knows which entries may have killed a relay.
        owner: Reaches the owning thread.
        lease: Is told which session has reached the loop.
        window: The most unsettled entries; see `relay.decide.window`.
        metrics: Counts messages that are read.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        *,
        completion: Completion,
        crash_guard: CrashGuard,
        owner: ToOwner,
        lease: Lease,
        window: int,
        metrics: Metrics,
    ) -> None:
        self.lanes, self.names = lanes, tuple(lanes)
        self.crash_guard, self.completion = crash_guard, completion
        self._window = Window(window, least=2 * len(lanes), page_bytes=PAGE_BYTES)  # two entries for each lane
        self._owner, self._lease, self._metrics = owner, lease, metrics
        self._held: dict[Handle, Entry] = {}
        self._lanes_for = lru_cache(maxsize=ROUTES_KEPT)(self._find_lanes)
        self._pages_accepted = 0
        self._is_ending = False

    # --------------------------------------------- read by the owning thread

    @property
    def window(self) -> int:
        """The most unsettled entries now."""
        return self._window.size

    def room(self, page_size: int) -> int:
        """Return how many messages to read next: 0 while all lanes that take messages are full."""
        set_back = sum(lane.queue.set_back.count for lane in self.lanes.values())  # they have a separate room
        free = self.window - len(self._held) + set_back
        return max(min(free, max((lane.wants for lane in self.lanes.values()), default=free), page_size), 0)

    @property
    def with_room(self) -> Mapping[str, int]:
        """The destinations that have room for more entries, and for how many."""
        return {name: wants for name, lane in self.lanes.items() if (wants := lane.wants)}

    @property
    def down(self) -> Collection[str]:
        """The destinations that take no messages now, and leave the room to others."""
        return [name for name, lane in self.lanes.items() if lane.has_siblings and not lane.takes_messages]

    @property
    def is_stocked(self) -> bool:
        """Whether every destination that takes messages has enough entries to send for a while."""
        return all(len(lane.queue.startable) >= STOCK for lane in self.lanes.values() if lane.takes_messages)

    @property
    def is_empty(self) -> bool:
        """Whether no entry is unsettled."""
        return not self._held

    @property
    def is_closed(self) -> bool:
        """Whether no destination takes messages now."""
        return not any(lane.takes_messages for lane in self.lanes.values())

    @property
    def is_watching_for_crashes(self) -> bool:
        """Whether the crash guard watches any shard."""
        return self.crash_guard.is_needed

    def pages_accepted(self, epoch: int) -> int:
        """Return how many pages of this session have arrived."""
        return self._pages_accepted if epoch == self._lease.arrived_epoch else 0

    def count_in(self, shards: Collection[int]) -> int:
        """Return how many entries of these shards are unsettled."""
        return sum(entry.shard in shards for entry in list(self._held.values()))

    def under_way(self) -> list[tuple[str, str]]:
        """Return the attempts under way: (destination, message) pairs."""
        return [(lane.name, entry.id) for lane in self.lanes.values() for entry in list(lane.queue.under_way)]

    # ------------------------------------------------------------- coming in

    def begin_session(self, epoch: int) -> None:
        """Note a new session; entries of an earlier one are not sent any more."""
        self._pages_accepted = 0
        self._lease.arrived_epoch = epoch

    def accept(self, page: Page, epoch: int) -> None:
        """Hand a page to the lanes."""
        if epoch != self._lease.arrived_epoch:
            return
        self._pages_accepted += 1
        if self._is_ending:
            return
        self._fit(page.messages)
        self._fit(page.deliveries)
        for row in page.deliveries:
            self._accept_delivery(row, page.blocked)
        for lane, entries in self._arrivals(page.messages).items():
            lane.accept_all(entries, page.held)
            lane.announce()
        if self._owner.ruled or self._owner.unrouted:
            self._owner.wake()

    def _fit(self, rows: Sequence[Row]) -> None:
        if self._window.fit((len(row[DATA]) for row in rows), len(rows), len(self._held)):
            for lane in self.lanes.values():
                lane.queue.resize(max(self.window // len(self.lanes), 1))

    def _arrivals(self, rows: Sequence[Row]) -> dict[Lane, list[Entry]]:
        """Return the entries of messages that are not in memory yet, by lane; set aside those that no lane wants."""
        held, lanes_for, epoch = self._held, self._lanes_for, self._lease.arrived_epoch
        arrivals: dict[Lane, list[Entry]] = {lane: [] for lane in self.lanes.values()}
        fresh = []
        for row in rows:
            if row[ID] in held:
                continue
            lanes = lanes_for(row[TYPE])
            held[row[ID]] = entry = Entry(row, lanes, epoch)
            fresh.append(entry)
            for lane in lanes:
                arrivals[lane].append(entry)
            if not lanes:
                self.completion.set_aside(entry)
        self._metrics.emitted(Counter([entry.row[TYPE] for entry in fresh]))
        return self._without_accused(arrivals, fresh) if self.crash_guard.is_needed else arrivals

    def _without_accused(self, arrivals: Mapping[Lane, list[Entry]], fresh: Sequence[Entry]) -> dict[Lane, list[Entry]]:
        for entry in fresh:
            self.crash_guard.look_at(entry)
        return {
            lane: [entry for entry in entries if not self._set_aside_if_accused(entry, lane)]
            for lane, entries in arrivals.items()
        }

    def _accept_delivery(self, row: Row, blocked: Mapping[Pair, int]) -> None:
        id_, name = row[ID], row[DESTINATION]
        lane = self.lanes.get(name)
        if lane is None or (id_, name) in self._held or id_ in self._held:
            return
        entry = Entry.of_delivery(row, lane, self._lease.arrived_epoch)
        self._held[entry.handle] = entry
        self.crash_guard.look_at(entry)
        before = blocked.get((name, row[ORDERING_KEY]))
        if lane.queue.is_held(entry, before) or not self._set_aside_if_accused(entry, lane):
            lane.accept_back(entry, before)

    def _set_aside_if_accused(self, entry: Entry, lane: Lane) -> bool:
        """Set an entry aside if it is accused; return whether it was."""
        if (verdict := self.crash_guard.verdict(entry, lane)) is not None:
            lane.queue.set_aside(entry, verdict)
        return verdict is not None

    def _find_lanes(self, event_type: str) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes.values() if wants(lane.events, event_type))

    # -------------------------------------------------------------- going out

    def forget(self, entries: Collection[Entry]) -> None:
        """Forget these entries, which are settled."""
        for entry in entries:
            self._held.pop(entry.handle, None)
            if not entry.is_plain:
                for lane in entry.lanes:
                    lane.queue.forget(entry)
            if entry.guard is not None:
                entry.guard.forget(entry)
        self.completion.settled(entries)

    @property
    def held_count(self) -> int:
        """The number of unsettled entries."""
        return len(self._held)

    @property
    def partly_delivered_count(self) -> int:
        """Messages that only some of their destinations have taken so far, settled or not."""
        held = (entry for entry in self._held.values() if entry.is_partly_decided)
        return self.completion.partly_delivered_count + sum(was_taken_by_any(entry) for entry in held)

    # ------------------------------------------------------------- letting go

    def end(self) -> None:
        """Take no more pages: no code would release the entries of a page that arrives after this call."""
        self._is_ending = True
        self.crash_guard.refuse()

    def release(self, shards: Collection[int], then: Callable[[], object] = lambda: None) -> None:
        """Release the entries of these shards that are not under way; then call a function.

        An entry that one destination took or is taking is settled; its other deliveries are parked.
        """
        self.crash_guard.refuse()
        evicted: dict[Handle, list[Lane]] = {}
        for lane in self.lanes.values():
            for entry in lane.evict(lambda e: e.shard in shards):
                evicted.setdefault(entry.handle, []).append(lane)
        for handle, lanes in evicted.items():
            entry = self._held[handle]
            if len(lanes) == len(entry.lanes):
                del self._held[handle]
                continue
            for lane in lanes:
                lane.queue.set_aside(entry, PARKED)
        then()

    def split(self) -> None:
        """Settle entries that have waited for one beat for the verdicts of some destinations: no verdict waits longer.

        These destinations get the entries back from the table later; an attempt that is under way goes on.
        """
        if len(self.lanes) == 1:
            return
        for lane in self.lanes.values():
            lane.park(lambda entry: entry.waited_a_beat)
        for entry in list(self._held.values()):
            if entry.waited_a_beat and entry.is_partly_decided:
                self._part(entry)
            entry.waited_a_beat = entry.is_partly_decided

    def _part(self, entry: Entry) -> None:
        for lane in entry.lanes:
            if (rest := lane.hand_over(entry)) is not None:
                self._held[rest.handle] = rest
                self.crash_guard.look_at(rest)

    def withdraw(self, deliveries: Collection[tuple[str, str]], epoch: int) -> None:
        """Release deliveries that an operator took back; answer which of them are no longer in memory."""
        ids = {entry.id for queue in (self._owner.done, self._owner.ruled) for entry in list(queue)}
        for lane in self.lanes.values():
            ids |= _take_back(lane, deliveries)
        held = {each for each in deliveries if each[0] in ids}
        self._owner.withdrawn.append(Withdrawn(epoch, set(deliveries) - held, held))

    # ------------------------------------------------- passed on to the lanes

    def follow(self, shared_states: Mapping[str, SharedState], asked_at: float, alone: bool) -> None:
        """Apply the shared state of the destinations, as of `asked_at`."""
        for name, shared_state in shared_states.items():
            if name in self.lanes:
                self.lanes[name].follow(shared_state, asked_at, alone=alone)

    def answer_probe(self, name: str, claimed: bool, shared_state: SharedState, asked_at: float) -> None:
        """Apply the answer to a probe request: whether this relay probes the destination for all relays."""
        self.lanes[name].answer(claimed, shared_state, asked_at)

    def answer_claim(self, name: str, granted: int, wait_s: float, asked_at: float) -> None:
        """Apply a share of a common rate budget."""
        lane = self.lanes[name]
        assert lane.admission.rate_limit is not None
        lane.admission.rate_limit.answer(granted, wait_s, asked_at)
        lane.announce()


def _take_back(lane: Lane, deliveries: Collection[tuple[str, str]]) -> set[str]:
    """Release deliveries that an operator took back; return their messages, including those under way.

    An entry that waits goes back to the table, with the entries of its key behind it; those are read again. An entry
    under way is not sent a second time: from here on it counts as an entry of an earlier session.
    """
    under_way = list(lane.queue.under_way.values())
    taken_back = {id_ for id_, name in deliveries if name == lane.name}
    found = taken_back.intersection(entry.id for entry in (*under_way, *lane.queue.waiting()))
    for entry in under_way:
        if entry.id in found:
            entry.epoch = STALE
    lane.park(lambda entry: entry.id in found)
    return found
