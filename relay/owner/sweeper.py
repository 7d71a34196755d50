"""Find deliveries that no other part would ever move again: sweep the table in slices, between turns.

A blocked delivery is released when its predecessor is done. A release can be missed: a relay that had the predecessor
in memory dies, or two sessions write verdicts on one key and neither sees the other's row. Two other cases also wait
for the sweep: a delivery that an operator discarded while its shard had no owner, and a message that the history
refused. So each owner scans the table of deliveries repeatedly, in laps of small slices. The cost of a slice depends
neither on the number of blocked deliveries nor on deleted rows.

Newly taken shards are scanned at once, slice after slice, for a part of every turn; the rest of the turn serves the
other shards. Until then their keys stay as they are: a blocked delivery stays blocked, and new messages queue behind
it. After that, one slice a beat is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.databases.store.contract import DISCARD_COUNT, Settling
from relay.databases.store.refused import refused_of
from relay.databases.store.rows import Cursors
from relay.decide.failures.crashes import Delivery
from relay.owner.reader import Reader
from relay.owner.reports import report_not_finished
from relay.owner.withdrawals import Withdrawals

SLICES_S = 0.02  # the part of a turn for the sweep while shards are fresh

Place = tuple[int, int]  # a lap, and how far it has come


class Sweeper:
    """Scans the deliveries of one session's shards.

    Args:
        settling: The writes of the session.
        cursors: The shards that are owned.
        reader: Reads released deliveries, and knows which deliveries operators discarded.
        withdrawals: Has the event loop release a delivery before it is finished.
        count: Called with a destination, a state, and the number of deliveries that ended in this state.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        settling: Settling,
        cursors: Cursors,
        reader: Reader,
        withdrawals: Withdrawals,
        *,
        count: Callable[[str, str, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._settling, self._cursors, self._reader = settling, cursors, reader
        self._withdrawals, self._count, self._clock = withdrawals, count, clock
        self._place: Place = (0, 0)
        self._shards: frozenset[int] = frozenset()
        self._fresh: dict[int, Place] = {}  # shard → where its first lap ends
        self._is_due = False
        self._holds_keys = False
        self._exception_count = 0  # the reader's count before this lap

    @property
    def is_hurried(self) -> bool:
        """Whether one slice a beat is not enough now."""
        is_settled_in = not self._fresh and self._shards == self._cursors.ready.keys()
        return not is_settled_in or bool(self._reader.discarded) or self._withdrawals.are_due

    def beat(self) -> None:
        """Scan one slice in the next turn."""
        self._is_due = True

    def turn(self) -> None:
        """Scan slices for `SLICES_S` while shards are fresh; else scan one slice a beat."""
        self._meet_shards()
        self._finish_discarded()
        if not self._shards or not (self._fresh or self._is_due):
            return
        self._is_due = False
        until = self._clock() + SLICES_S
        self._sweep()
        while self._fresh and self._clock() < until:
            self._sweep()

    def _meet_shards(self) -> None:
        """Find the shards that were taken or handed back since the last turn."""
        if self._shards == self._cursors.ready.keys():
            return
        lap, at = self._place
        shards = frozenset(self._cursors.ready)
        taken = dict.fromkeys(shards - self._shards, (lap + 1, at))
        self._fresh = {s: end for s, end in self._fresh.items() if s in shards} | taken
        self._shards = shards

    def _sweep(self) -> None:
        lap, at = self._place
        if at == 0:
            self._holds_keys, self._exception_count = False, self._reader.exception_count
        found = self._settling.sweep(at, sorted(self._shards), sorted(self._fresh))
        self._holds_keys |= found.holds_keys
        self._reader.discarded += found.discarded
        if found.parked:
            self._reader.note_exceptions(found.parked)
        self._place = (lap + 1, 0) if found.next_at is None else (lap, found.next_at)
        self._fresh = {shard: end for shard, end in self._fresh.items() if end > self._place}
        if found.next_at is None and not self._holds_keys:
            self._reader.forget_exceptions(self._exception_count)

    def _finish(self, deliveries: Sequence[Delivery]) -> None:
        self._reader.note_exceptions(self._settling.discard(deliveries))

    def _finish_discarded(self) -> None:
        discarded = self._reader.discarded
        batch = [discarded.popleft() for _ in range(min(len(discarded), DISCARD_COUNT))]
        if batch:
            self._withdrawals.post(batch)
        if withdrawn := self._withdrawals.take():
            report_not_finished([(id_, why) for (id_, _), why in refused_of(withdrawn, self._finish)])
        given_up = self._settling.given_up
        while given_up:
            (destination, state), count = given_up.popitem()
            self._count(destination, state, count)
