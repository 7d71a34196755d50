"""The crash guard: what may have killed a relay is noted before it is sent. Runs on the event loop.

While every owner hands its shards back in order there is nothing here, and an entry costs one look at an empty table. A
shard that was not handed back is **watched**: every entry that its dead owner can have had under way carries this
object in `Entry.guard`, and a worker asks for a permit before each attempt at it. The permit comes when the owning
thread has noted the delivery in ``outbox_shard.started``. All requests of one moment share one statement, which does
not wait for the disk: when a relay dies, the server keeps what it was told. So as much is under way as ever, a round
trip later.

What was noted when an owner died is **accused** (see `relay.decide.crashes`). It is put off until no relay has ended
for a while: everything else goes first, and relays that are killed again and again for some other reason never get to
it. Then it is tried **alone**: the gate closes for everything else, and opens when the attempt has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from relay.decide.crashes import Accused, Delivery
from relay.decide.verdict import Verdict, dead, retry
from relay.delivery.crashes.records import CrashRecords
from relay.delivery.lane import Lane
from relay.seam import Entry, Lease, Note, ToOwner
from relay.store.contract import Inherited

CALM_S = 5.0  # no trial until no relay has ended for so long: a relay might be killed for another reason just then
PATIENCE_S = 5.0  # how long a trial waits for what is under way; then it goes on, and proves less
LOOK_S = 0.005  # between looks at whether everything else has ended
LAZY_S = 0.02  # until it is noted that an attempt has ended, when nothing else is to be noted


@dataclass(eq=False, slots=True)
class PermitRequest:
    """A worker's request to begin an attempt."""

    delivery: Delivery
    shard: int
    answer: asyncio.Future[bool]

    def resolve(self, granted: bool) -> None:
        """Answer it, unless it was answered."""
        if not self.answer.done():
            self.answer.set_result(granted)


class TrialGate:
    """Whether an accused delivery is tried alone: then nothing else may start.

    Attributes:
        trial: The attempt that is made alone now.
        trials: Those that wait to be.
    """

    def __init__(self) -> None:
        self.trial: PermitRequest | None = None
        self.trials: deque[PermitRequest] = deque()

    @property
    def is_open(self) -> bool:
        """Whether any attempt may start."""
        return self.trial is None and not self.trials


class CrashGuard:
    """What is watched and accused of this relay's shards.

    Args:
        lanes: The destinations.
        gate: Closed while a delivery is tried alone.
        records: What is known of each shard.
        owner: Writes notes.
        lease: Whether this relay may send.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        gate: TrialGate,
        records: CrashRecords,
        *,
        owner: ToOwner,
        lease: Lease,
        clock: Callable[[], float],
    ) -> None:
        self._lanes, self._gate, self._records = lanes, gate, records
        self._owner, self._lease, self._clock = owner, lease, clock
        self._epoch = 0
        self._waiting: list[PermitRequest] = []
        self._noted: set[PermitRequest] = set()  # written, or being written
        self._patient_until = 0.0
        self._calm_from = self._clock() + CALM_S  # it may have been a relay's end that this one was started for
        self._is_hurried = False
        self._alarm: asyncio.Handle | None = None

    # ---------------------------------------------------------------- shards

    @property
    def is_needed(self) -> bool:
        """Whether any shard has a record."""
        return bool(self._records)

    def begin_session(self, epoch: int) -> None:
        """Note that a new session owns from here on."""
        self._epoch = epoch

    def take_over(self, shards: Sequence[Inherited]) -> None:
        """Take in what the last owners of these shards left."""
        for inherited in shards:
            self._records.take_over(inherited)
        if any(inherited.is_dirty for inherited in shards):
            self.disturb()
        self._soon()

    def disturb(self) -> None:
        """Note that a relay has ended just now: the last owner of some shards, or a peer."""
        self._calm_from = self._clock() + CALM_S

    def hurry(self) -> None:
        """Wait for no calm: this relay ends when everything is done that can be done now."""
        self._is_hurried = True

    def leave(self, shards: Sequence[int]) -> None:
        """Forget shards that were handed back."""
        self._records.leave(shards)

    def rest(self) -> None:
        """Watch nothing new: everything was read that a dead owner can have had under way."""
        self._records.end_watch()
        self._note_lazily()

    # ------------------------------------------------------------- coming in

    def look_at(self, entry: Entry) -> None:
        """Watch an entry, if the last owner of its shard can have had it under way."""
        if self._records.is_watched(entry):
            entry.guard = self

    def verdict(self, entry: Entry, lane: Lane) -> Verdict | None:
        """Return the verdict on an entry that is accused, unless it may be tried now."""
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
        """Note that an entry is settled: what was decided here stands in the table now."""
        if entry.epoch == self._epoch and self._records.note_settled(entry):
            self._note_lazily()

    # ------------------------------------------------------------- going out

    async def permit(self, destination: str, entry: Entry) -> bool:
        """Wait until it is on record that this is about to be sent; return false when it may not be sent any more."""
        delivery = entry.id, destination
        request = PermitRequest(delivery, entry.shard, asyncio.get_running_loop().create_future())
        if self._records.accusation(entry.shard, delivery) is not None:
            if not self._gate.trials:
                self._patient_until = self._clock() + PATIENCE_S
            self._gate.trials.append(request)
        else:
            self._waiting.append(request)
        self._soon()
        try:
            granted = await request.answer
        except asyncio.CancelledError:
            self._withdraw(request)
            raise
        if granted and self._lease.is_held(self._clock()) and self._lanes[destination].health.operator_pause is None:
            return True
        self._withdraw(request)
        return False

    def survived(self, destination: str, entry: Entry) -> None:
        """Note that an attempt has ended, and the relay has not."""
        delivery = entry.id, destination
        self._records.acquit(entry.shard, delivery)
        self._end(entry.shard, delivery)

    def _withdraw(self, request: PermitRequest) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
        elif request in self._gate.trials:
            self._gate.trials.remove(request)
        self._noted.discard(request)
        self._end(request.shard, request.delivery)

    def _end(self, shard: int, delivery: Delivery) -> None:
        if self._records.end(shard, delivery):
            self._note_lazily()
        if self._gate.trial is not None and self._gate.trial.delivery == delivery:
            self._gate.trial = None
        if self._gate.is_open:
            for lane in self._lanes.values():
                lane.announce()
        if self._waiting or self._gate.trials:
            self._soon()

    def refuse(self) -> None:
        """Refuse every request: what may start has changed."""
        for request in [*self._waiting, *self._gate.trials, *self._noted]:
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
        """Start what may start: every request, or one alone; have the owning thread write that down first."""
        self._alarm = None
        requests = self._start_trial() if self._gate.trials and self._gate.trial is None else self._start_waiting()
        if requests or self._records.changed:
            self._noted.update(requests)
            self._owner.note(Note(self._epoch, self._records.take_changed(), requests))

    def _start_trial(self) -> list[PermitRequest]:
        is_quiet = self._is_quiet()
        if not is_quiet and self._clock() <= self._patient_until:
            self._soon(LOOK_S)
            return []
        request = self._gate.trial = self._gate.trials.popleft()
        self._records.start(request.shard, request.delivery, is_alone=is_quiet)
        return [request]

    def _start_waiting(self) -> list[PermitRequest]:
        if self._gate.trial is not None:
            return []
        requests, self._waiting = self._waiting, []
        for request in requests:
            self._records.start(request.shard, request.delivery, is_alone=False)
        return requests

    def _is_quiet(self) -> bool:
        """Return whether nothing is under way but what waits for a permit."""
        under_way = sum(len(lane.queue.under_way) for lane in self._lanes.values())
        return under_way <= len(self._waiting) + len(self._gate.trials)

    def written(self, notes: Sequence[Note]) -> None:
        """Grant the requests of these notes, which are in the table."""
        for note in notes:
            for request in note.requests:
                if isinstance(request, PermitRequest):
                    self._noted.discard(request)
                request.resolve(True)


def _why_dead(accused: Accused, attempts: int, max_attempts: int) -> str:
    return (
        f"relays died of it: {accused.crashes} in a row ended while it was under way, at last with nothing else under "
        f"way (attempt {attempts + accused.crashes} of {max_attempts})"
    )


def _why_put_off(accused: Accused) -> str:
    return f"{accused.crashes} relays in a row died, perhaps of this; it is tried again by itself, and not charged yet"
