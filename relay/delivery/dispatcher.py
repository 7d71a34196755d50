"""Hand the messages of a page to the lanes of their destinations, and track unsettled entries, on the event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from relay.decide.shared_state import SharedState
from relay.decide.subscription import wants
from relay.decide.verdict import PARKED
from relay.delivery.completion import Completion, was_taken_by_any
from relay.delivery.crashes.guard import CrashGuard
from relay.delivery.lane import Lane
from relay.delivery.withdrawals import Withdrawals
from relay.observe.metrics import Metrics
from relay.seam import Entry, Handle, Lease, Note, ToOwner
from relay.store.contract import Inherited
from relay.store.rows import DESTINATION, ID, ORDERING_KEY, TYPE, Page, Pair, Row

ROUTES_KEPT = 10_000  # event types are few, unless a producer generates them
STOCK = 250  # entries of a destination that keep it busy for a while


class Dispatcher:
    """The entries that this relay has read and not settled: `relay.seam.Delivery` and `relay.seam.DeliveryView`.

    Args:
        lanes: The destinations.
        subscriptions: Destination → the event types that it wants, globs allowed.
        completion: Takes entries that have all their verdicts.
        crash_guard: Knows which entries may have killed a relay.
        owner: Reaches the owning thread.
        lease: Is told which session has reached the loop.
        window: Unsettled entries at most.
        metrics: Counts messages that are read.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        subscriptions: Mapping[str, Sequence[str]],
        *,
        completion: Completion,
        crash_guard: CrashGuard,
        owner: ToOwner,
        lease: Lease,
        window: int,
        metrics: Metrics,
    ) -> None:
        self.lanes = {lane.name: lane for lane in lanes}
        self.names = tuple(self.lanes)
        self.skipping = [lane.name for lane in lanes if lane.on_dead == "skip"]
        self.crash_guard, self.completion = crash_guard, completion
        self._withdrawals = Withdrawals(lanes, owner)
        self._subscriptions, self._metrics = subscriptions, metrics
        self._window = max(window, 2 * len(lanes))  # each keeps two entries, even one that is down
        self._owner, self._lease = owner, lease
        self._held: dict[Handle, Entry] = {}
        self._lanes_for = lru_cache(maxsize=ROUTES_KEPT)(self._find_lanes)
        self._epoch = self._pages_accepted = 0
        self._is_ending = False

    # --------------------------------------------- read by the owning thread

    def room(self, page_size: int) -> int:
        """Return how many messages to read next: 0 while all lanes that take messages are full."""
        set_back = sum(lane.queue.set_back.count for lane in self.lanes.values())  # it has a room of its own
        free = self._window - len(self._held) + set_back
        return max(min(free, max((lane.wants for lane in self.lanes.values()), default=free), page_size), 0)

    @property
    def with_room(self) -> Mapping[str, int]:
        """The destinations that have room for more, and for how many."""
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
        return self._pages_accepted if epoch == self._epoch else 0

    def count_in(self, shards: Collection[int]) -> int:
        """Return how many entries of these shards are unsettled."""
        return sum(entry.shard in shards for entry in list(self._held.values()))

    def under_way(self) -> list[tuple[str, str]]:
        """Return the attempts under way: (destination, message) pairs."""
        return [(lane.name, entry.id) for lane in self.lanes.values() for entry in list(lane.queue.under_way)]

    # ------------------------------------------------------------- coming in

    def begin_session(self, epoch: int) -> None:
        """Note a new session; entries of an earlier one are not sent any more."""
        self._epoch, self._pages_accepted = epoch, 0
        self.crash_guard.begin_session(epoch)
        self._withdrawals.begin_session()
        for lane in self.lanes.values():
            lane.validity.begin_session(epoch)
        self._lease.arrive(epoch)

    def accept(self, page: Page, epoch: int) -> None:
        """Hand a page to the lanes."""
        if epoch != self._epoch:
            return
        self._pages_accepted += 1
        if self._is_ending:
            return
        for row in page.deliveries:
            self._accept_delivery(row, page.blocked)
        for lane, entries in self._arrivals(page.messages).items():
            lane.accept_all(entries, page.held)
            lane.announce()
        if self._owner.ruled or self._owner.unrouted:
            self._owner.wake()

    def _arrivals(self, rows: Sequence[Row]) -> dict[Lane, list[Entry]]:
        """Return the entries of the messages that are not in memory yet, by lane; set those aside that none wants."""
        held, lanes_for, epoch = self._held, self._lanes_for, self._epoch
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
        self._metrics.emitted(Counter([entry.message.type for entry in fresh]))
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
        entry = Entry.of_delivery(row, lane, self._epoch)
        self._held[entry.handle] = entry
        self.crash_guard.look_at(entry)
        before = blocked.get((name, row[ORDERING_KEY]))
        if lane.queue.is_held(entry, before) or not self._set_aside_if_accused(entry, lane):
            lane.accept_back(entry, before)

    def _set_aside_if_accused(self, entry: Entry, lane: Lane) -> bool:
        """Set an accused entry aside; return whether it was accused."""
        if (verdict := self.crash_guard.verdict(entry, lane)) is not None:
            lane.set_aside(entry, verdict)
        return verdict is not None

    def _find_lanes(self, event_type: str) -> tuple[Lane, ...]:
        return tuple(lane for name, lane in self.lanes.items() if wants(self._subscriptions[name], event_type))

    # -------------------------------------------------------------- going out

    def forget(self, entries: Collection[Entry]) -> None:
        """Note that these entries are settled, and forget them."""
        for entry in entries:
            self._held.pop(entry.handle, None)
            if not entry.is_plain:
                for lane in entry.lanes:
                    lane.forget(entry)
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
        """Take no more pages: no code would release the entries of a page that arrives after this."""
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
                lane.set_aside(entry, PARKED)
        then()

    def split(self) -> None:
        """Settle entries that have waited for a beat for the verdicts of some destinations: no verdict waits longer.

        These destinations get them back from the table later; an attempt that is under way goes on.
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

    def withdraw(self, deliveries: Sequence[tuple[str, str]], epoch: int) -> None:
        """Release deliveries that an operator took back."""
        self._withdrawals.release(deliveries, epoch)

    # ------------------------------------------------- passed on to the parts

    def set_clock(self, offset_s: float) -> None:
        """Set the difference between the database's clock and the relay's, in seconds."""
        for lane in self.lanes.values():
            lane.validity.set_clock(offset_s)

    def follow(self, shared_states: Mapping[str, SharedState], asked_at: float, alone: bool) -> None:
        """Apply the shared state of the destinations, as of `asked_at`."""
        for name, shared_state in shared_states.items():
            if name in self.lanes:
                self.lanes[name].follow(shared_state, asked_at, alone=alone)

    def answer_probe(self, name: str, claimed: bool, shared_state: SharedState, asked_at: float) -> None:
        """Apply the answer whether this relay probes a destination for all relays."""
        self.lanes[name].answer(claimed, shared_state, asked_at)

    def answer_claim(self, name: str, granted: int, wait_s: float, asked_at: float) -> None:
        """Apply a share of a common rate budget."""
        self.lanes[name].answer_claim(granted, wait_s, asked_at)

    def take_over(self, inherited: Sequence[Inherited]) -> None:
        """Pass on what the last owners of these shards left."""
        self.crash_guard.take_over(inherited)

    def leave(self, shards: Sequence[int]) -> None:
        """Note that these shards were handed back."""
        self.crash_guard.leave(shards)

    def peer_ended(self) -> None:
        """Note that another relay has ended."""
        self.crash_guard.disturb()

    def everything_is_read(self) -> None:
        """Note that all entries that a dead owner may have had under way were read."""
        self.crash_guard.rest()

    def written(self, notes: Sequence[Note]) -> None:
        """Note that these notes are in the table."""
        self.crash_guard.written(notes)
