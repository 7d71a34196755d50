"""The crash guard: note each delivery that may have killed a relay before it is sent again. Runs on the event loop.

While all owners hand back their shards in order, there are no records, and an entry costs one look-up in an empty
dictionary. A shard that was not handed back is **watched**: each entry that its dead owner may have had under way
refers to this object in `Entry.guard`, and a worker asks for a permit before each attempt. The permit comes when the
owning thread has noted the delivery in ``outbox_shard.started``. All requests of one moment share one statement. That
statement does not wait for the disk, because the note has to survive the relay and not the server. So the concurrency
stays the same, and each attempt starts one round trip later.

A delivery that was noted when an owner died is **accused** (see `relay.decide.failures.crashes`). It waits until no
relay has ended for some time, so that all other deliveries go first, and relays that are repeatedly killed for another
reason do not try it. Then it is tried **alone**: the gate closes for all other attempts, and opens when this attempt
has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from relay.databases.store.inheriting import Inherited
from relay.decide.failures.crashes import Accused, Delivery
from relay.decide.verdict import Verdict, dead, retry
from relay.delivery.crashes.records import CrashRecords
from relay.delivery.lane import Lane
from relay.seam import Entry, Lease, Note, PermitRequest, ToOwner

CALM_S = 5.0  # a trial starts when no relay has ended for this time: something else might kill this relay, too
PATIENCE_S = 5.0  # how long a trial waits for attempts under way; after that it starts anyway, and proves less
LOOK_S = 0.005  # between checks whether all other attempts have ended
LAZY_S = 0.02  # how long to wait before noting the end of an attempt, if no other note is due


class CrashGuard:
    """Watches the shards of this relay that were not handed back, and tries accused deliveries alone.

    Args:
        lanes: The destinations.
        window: The most unsettled entries that a relay may hold.
        owner: Writes notes.
        lease: Knows whether this relay may send.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        *,
        window: int,
        owner: ToOwner,
        lease: Lease,
        clock: Callable[[], float],
    ) -> None:
        self._lanes, self._records = lanes, CrashRecords(window)
        self._owner, self._lease, self._clock = owner, lease, clock
        self._trial: PermitRequest | None = None  # the accused attempt that runs alone now
        self._trials: deque[PermitRequest] = deque()  # the accused attempts that wait for their turn
        self._waiting: list[PermitRequest] = []
        self._noted: set[PermitRequest] = set()  # written, or being written
        self._patient_until = 0.0
        self._calm_from = self._clock() + CALM_S  # this relay may have been started because another relay ended
        self._is_hurried = False
        self._alarm: asyncio.Handle | None = None

    # ---------------------------------------------------------------- shards

    @property
    def is_needed(self) -> bool:
        """Whether any shard has a record."""
        return bool(self._records)

    def take_over(self, shards: Sequence[Inherited]) -> None:
        """Read the crash records that the last owners of these shards left."""
        for inherited in shards:
            self._records.take_over(inherited)
        if any(inherited.is_dirty for inherited in shards):
            self.disturb()
        self._soon()

    def disturb(self) -> None:
        """Note that a relay has just ended: the last owner of some shards, or a peer."""
        self._calm_from = self._clock() + CALM_S

    def hurry(self) -> None:
        """Try accused deliveries without waiting for a quiet time, because this relay drains and then ends."""
        self._is_hurried = True

    def leave(self, shards: Sequence[int]) -> None:
        """Forget shards that were handed back."""
        self._records.leave(shards)

    def rest(self) -> None:
        """Watch no further entries: everything that a dead owner may have had under way was read."""
        self._records.end_watch()
        self._note_lazily()

    # ------------------------------------------------------------- coming in

    def look_at(self, entry: Entry) -> None:
        """Watch an entry if the last owner of its shard may have had it under way."""
        if self._records.is_watched(entry):
            entry.guard = self

    def verdict(self, entry: Entry, lane: Lane) -> Verdict | None:
        """Return the verdict on an accused entry; ``None`` if it may be tried now."""
        accused = self._records.accusation(entry.shard, (entry.id, lane.name))
        if accused is None:
            return None
        entry.guard = self
        policy = lane.policy
        if accused.is_convicted(entry.attempts, policy.max_attempts):
            return dead(_why_dead(accused, entry.attempts, policy.max_attempts), charged=accused.crashes)
        if not accused.rested or (self._clock() < self._calm_from and not self._is_hurried):
            return retry(policy.ceiling_s(accused.crashes - 1), _why_put_off(accused), charged=0, delay_floor_s=CALM_S)
        entry.alone = True
        return None

    def forget(self, entry: Entry) -> None:
        """Note that an entry is settled: the table has the verdicts of this relay now."""
        if entry.epoch == self._lease.arrived_epoch and self._records.note_settled(entry):
            self._note_lazily()

    # ------------------------------------------------------------- going out

    def is_open(self, now: float) -> bool:
        """Return whether an attempt may start at this time, for any delivery that is not accused."""
        return self._trial is None and not self._trials and self._lease.is_held(now)

    async def permit(self, destination: str, entry: Entry) -> bool:
        """Wait until the attempt is noted in the table; return false if it may not start any more."""
        delivery = entry.id, destination
        request = PermitRequest(delivery, entry.shard, asyncio.get_running_loop().create_future())
        if self._records.accusation(entry.shard, delivery) is not None:
            if not self._trials:
                self._patient_until = self._clock() + PATIENCE_S
            self._trials.append(request)
        else:
            self._waiting.append(request)
        self._soon()
        try:
            granted = await request.answer
        except asyncio.CancelledError:
            self._withdraw(request)
            raise
        if granted and self._may_still_start(self._lanes[destination], entry):
            return True
        self._withdraw(request)
        return False

    def _may_still_start(self, lane: Lane, entry: Entry) -> bool:
        now = self._clock()
        is_valid = lane.admission.refusal(entry, now) is None
        return is_valid and self._lease.is_held(now) and lane.health.operator_pause is None

    def survived(self, destination: str, entry: Entry) -> None:
        """Note that an attempt has ended, and that the relay survived it."""
        delivery = entry.id, destination
        self._records.acquit(entry.shard, delivery)
        self._end(entry.shard, delivery)

    def _withdraw(self, request: PermitRequest) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
        elif request in self._trials:
            self._trials.remove(request)
        self._noted.discard(request)
        self._end(request.shard, request.delivery)

    def _end(self, shard: int, delivery: Delivery) -> None:
        if self._records.end(shard, delivery):
            self._note_lazily()
        if self._trial is not None and self._trial.delivery == delivery:
            self._trial = None
        if self._trial is None and not self._trials:
            for lane in self._lanes.values():
                lane.announce()
        if self._waiting or self._trials:
            self._soon()

    def refuse(self) -> None:
        """Refuse all requests: the session or the shards have changed."""
        for request in [*self._waiting, *self._trials, *self._noted]:
            request.resolve(False)

    # --------------------------------------------------------------- writing

    def _note_lazily(self) -> None:
        if self._records.changed and self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(LAZY_S, self._advance)

    def _soon(self, delay_s: float = 0.0) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._advance)

    def _advance(self) -> None:
        """Choose the attempts that may start: all requests, or one alone. Have the owning thread note them first."""
        self._alarm = None
        requests = self._start_trial() if self._trials and self._trial is None else self._start_waiting()
        if requests or self._records.changed:
            self._noted.update(requests)
            self._owner.note(Note(self._lease.arrived_epoch, self._records.take_changed(), requests))

    def _start_trial(self) -> list[PermitRequest]:
        is_quiet = self._is_quiet()
        if not is_quiet and self._clock() <= self._patient_until:
            self._soon(LOOK_S)
            return []
        request = self._trial = self._trials.popleft()
        self._records.start(request.shard, request.delivery, is_alone=is_quiet)
        return [request]

    def _start_waiting(self) -> list[PermitRequest]:
        if self._trial is not None:
            return []
        requests, self._waiting = self._waiting, []
        for request in requests:
            self._records.start(request.shard, request.delivery, is_alone=False)
        return requests

    def _is_quiet(self) -> bool:
        """Return whether all attempts under way wait for a permit."""
        under_way = sum(len(lane.queue.under_way) for lane in self._lanes.values())
        return under_way <= len(self._waiting) + len(self._trials)

    def written(self, notes: Sequence[Note]) -> None:
        """Grant the requests of these notes: they are in the table."""
        for note in notes:
            for request in note.requests:
                self._noted.discard(request)
                request.resolve(True)


def _why_dead(accused: Accused, attempts: int, max_attempts: int) -> str:
    return (
        f"relays died of it: {accused.crashes} in a row ended while it was under way, at last with nothing else under "
        f"way (attempt {attempts + accused.crashes} of {max_attempts})"
    )


def _why_put_off(accused: Accused) -> str:
    return f"{accused.crashes} relays in a row died, perhaps of this; it is tried again by itself, and not charged yet"
