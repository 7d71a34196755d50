"""Sweep: find deliveries that no other part would ever move again, a slice at a time, between turns.

A blocked delivery is released when its predecessor is done. A release can be missed: a relay that had the predecessor
in memory dies; or two sessions write verdicts on one key, and neither sees the other's row. And a delivery that an
operator discarded while its shard had no owner waits to be finished. So each owner scans the table of deliveries
repeatedly, in laps of small slices. The cost of a slice depends neither on the number of blocked deliveries nor on
deleted rows.

Newly taken shards are scanned at once, slice after slice, for a part of every turn; the rest of the turn serves the
other shards. Until then their keys stay as they are: a blocked delivery stays blocked, and new messages queue behind
it. After that, one slice a beat is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.owner.reader import Reader
from relay.owner.withdrawals import Withdrawals
from relay.store.contract import DISCARD_COUNT, Session
from relay.store.rows import Cursors

SLICES_S = 0.02  # seconds of a turn, while shards are fresh

Place = tuple[int, int]  # a lap, and how far it has come


class Sweeper:
    """Scans the deliveries of one session's shards.

    Args:
        session: The session.
        cursors: The shards that are owned.
        reader: Reads released deliveries, and knows those that operators discarded.
        withdrawals: Has the event loop release a delivery before it is finished.
        skipping: The destinations whose dead letters do not block their successors.
        count: Called with a destination, a state, and the number of deliveries that are finished in it.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        session: Session,
        cursors: Cursors,
        reader: Reader,
        withdrawals: Withdrawals,
        *,
        skipping: Sequence[str],
        count: Callable[[str, str, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._session, self._cursors, self._reader, self._skipping = session, cursors, reader, skipping
        self._withdrawals, self._count, self._clock = withdrawals, count, clock
        self._place: Place = (0, 0)
        self._shards: frozenset[int] = frozenset()
        self._fresh: dict[int, Place] = {}  # shard → where its first lap ends
        self._is_due = False
        self._holds_keys = False
        self._exception_count = 0  # before this lap

    @property
    def is_hurried(self) -> bool:
        """Whether one slice a beat is not enough now."""
        is_settled_in = not self._fresh and self._shards == self._cursors.ready.keys()
        return not is_settled_in or bool(self._reader.discarded) or self._withdrawals.are_due

    def beat(self) -> None:
        """Scan one slice in the next turn."""
        self._is_due = True

    def turn(self) -> None:
        """Scan slices for `SLICES_S` seconds while shards are fresh; else one slice a beat."""
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
        found = self._session.sweep(at, sorted(self._shards), sorted(self._fresh), self._skipping)
        self._holds_keys |= found.holds_keys
        self._reader.discarded += found.discarded
        if found.parked:
            self._reader.note_exceptions(found.parked)
        self._place = (lap + 1, 0) if found.next_at is None else (lap, found.next_at)
        self._fresh = {shard: end for shard, end in self._fresh.items() if end > self._place}
        if found.next_at is None and not self._holds_keys:
            self._reader.forget_exceptions(self._exception_count)

    def _finish_discarded(self) -> None:
        discarded = self._reader.discarded
        batch = [discarded.popleft() for _ in range(min(len(discarded), DISCARD_COUNT))]
        if batch:
            self._withdrawals.post(batch)
        if withdrawn := self._withdrawals.take():
            self._reader.note_exceptions(self._session.discard(withdrawn, self._skipping))
        given_up = self._session.given_up
        while given_up:
            (destination, state), count = given_up.popitem()
            self._count(destination, state, count)
