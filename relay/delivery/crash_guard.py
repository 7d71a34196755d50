"""The crash guard: what may have killed a relay is noted before it is sent. Runs on the event loop, but for `write`.

While every owner hands its shards back in order there is nothing here, and an entry costs one look at an empty table. A
shard that was not handed back is **watched**: whatever its dead owner can have had in its hands carries this object in
`Entry.guard`, and its lane asks for a permit before each attempt. It has it when the owning thread has noted the
delivery in `outbox_shard.started`; all that ask at once share one statement, which does not wait for the disk (a relay
that dies takes nothing with it that the server was told). So as much is under way as ever, a round trip later.

What was noted when an owner died is **accused** (see `relay.decide.crashes`): it is put off until no relay has ended
for a while, so that everything else goes first and relays that are killed again and again for some other reason never
get to it. Then it is tried: the gate closes for everybody else, and opens when the attempt has ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from relay.decide.crashes import Accused, Delivery, Record
from relay.decide.verdict import Verdict, dead, retry
from relay.delivery.entry import Entry
from relay.delivery.lane import Lane
from relay.store.contract import Inherited, Session

CALM_S = 5.0  # nobody is tried until no relay has ended for so long: it might be killed for another reason just then
PATIENCE_S = 5.0  # how long a trial waits for what is under way; then it goes on, and proves less
LOOK_S = 0.005  # between looks at whether everything else has ended
LAZY_S = 0.02  # until it is noted that something ended, when nothing else is to be noted


@dataclass(slots=True)
class Dossier:
    """What is known of one shard.

    Args:
        record: What the table is told.
        counts: How much was watched, by destination (``None``: messages from the queue).
    """

    record: Record
    counts: Counter[str | None] = field(default_factory=Counter)


@dataclass(eq=False, slots=True)
class Request:
    """A lane's wish to send something."""

    delivery: Delivery
    shard: int
    answer: asyncio.Future[bool]

    def resolve(self, granted: bool) -> None:
        if not self.answer.done():
            self.answer.set_result(granted)


@dataclass(frozen=True, slots=True)
class Note:
    """What the owning thread is to write, and who waits for it."""

    epoch: int
    records: Mapping[int, str | None]
    requests: Sequence[Request]


class CrashGuard:
    """What is watched and accused of this relay's shards.

    Args:
        lanes: The destinations.
        window: How many entries a relay holds: of each shard, no more can have been in the hands of its last owner.
        owns: Whether this relay knows that it owns what it holds.
        on_work: Called when there is something to write.
        clock: The time, in seconds.

    Attributes:
        notes: What is to be written; the owning thread takes them from the left.
        epoch: The number of the session that owns now.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        *,
        window: int,
        owns: Callable[[float], bool],
        on_work: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self.notes: deque[Note] = deque()
        self.epoch = 0
        self._lanes, self._window, self._owns, self._on_work = lanes, window, owns, on_work
        self._dossiers: dict[int, Dossier] = {}
        self._changed: set[int] = set()
        self._waiting: list[Request] = []
        self._trials: deque[Request] = deque()
        self._noted: set[Request] = set()  # written, or being written
        self._trial: Request | None = None
        self._patient_until = 0.0
        self._calm_from = self._clock() + CALM_S  # it may have been a relay's end that this one was started for
        self._is_hurried = False
        self._alarm: asyncio.Handle | None = None

    # ---------------------------------------------------------------- shards

    @property
    def is_needed(self) -> bool:
        return bool(self._dossiers)

    @property
    def is_open(self) -> bool:
        """Whether anybody may start anything: not while something is tried alone."""
        return self._trial is None and not self._trials

    def take_over(self, shards: Sequence[Inherited]) -> None:
        """These shards are ours now; see what their last owners left."""
        for inherited in shards:
            if not inherited.was_mine:
                self._open(inherited)
            if inherited.shard in self._dossiers or inherited.record is not None:
                self._changed.add(inherited.shard)
        if any(inherited.is_dirty for inherited in shards):
            self.disturb()
        self._soon()

    def disturb(self) -> None:
        """A relay has ended just now: the last owner of some shards, or a peer."""
        self._calm_from = self._clock() + CALM_S

    def hurry(self) -> None:
        """Wait for no calm: this relay ends when everything is done that can be done now."""
        self._is_hurried = True

    def _open(self, inherited: Inherited) -> None:
        self._dossiers.pop(inherited.shard, None)
        left = Record.parse(inherited.record)
        accused = left.after_crash() if inherited.is_dirty else left.accused
        until = inherited.at if inherited.is_dirty else left.until
        record = Record(until, {d: a for d, a in accused.items() if d[0] in inherited.present})
        if not record.is_empty:
            self._dossiers[inherited.shard] = Dossier(record)

    def leave(self, shards: Sequence[int]) -> None:
        """These shards are somebody else's now; what is accused there stands in the table."""
        for shard in shards:
            self._dossiers.pop(shard, None)

    def rest(self) -> None:
        """Everything was read that a dead owner can have had: nothing new need be watched."""
        for shard, dossier in list(self._dossiers.items()):
            if dossier.record.until is not None:
                dossier.record.until = None
                self._change(shard)
            self._tidy(shard)

    def _tidy(self, shard: int) -> None:
        if self._dossiers[shard].record.is_empty:
            del self._dossiers[shard]

    # ------------------------------------------------------------- coming in

    def look_at(self, entry: Entry) -> None:
        """Watch it, if its last owner can have had it in its hands."""
        dossier = self._dossiers.get(entry.shard)
        until = dossier.record.until if dossier is not None else None
        if dossier is None or until is None or entry.message.created_at > until:
            return
        dossier.counts[entry.destination] += 1
        if dossier.counts[entry.destination] <= self._window:
            entry.guard = self

    def verdict(self, entry: Entry, lane: Lane) -> Verdict | None:
        """What is to be done with it before it is sent, if it is accused and not up for its trial."""
        dossier = self._dossiers.get(entry.shard)
        accused = dossier.record.accused.get((entry.id, lane.name)) if dossier is not None else None
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
        """It is settled: whatever was decided here stands in the table now."""
        dossier = self._dossiers.get(entry.shard)
        if dossier is None or entry.epoch != self.epoch:
            return
        accused = dossier.record.accused
        for lane in entry.lanes:
            delivery = entry.id, lane.name
            known, state = accused.get(delivery), entry.verdict_of(lane.name).state
            if known is None or state not in ("dead", "retry"):
                continue
            if state == "dead":
                del accused[delivery]
            else:
                accused[delivery] = Accused(known.crashes, known.alone, rested=True)
            self._change(entry.shard)

    # ------------------------------------------------------------- going out

    async def permit(self, destination: str, entry: Entry) -> bool:
        """Wait until it is noted that this is about to be sent; false when it may not be sent any more."""
        request = Request((entry.id, destination), entry.shard, asyncio.get_running_loop().create_future())
        dossier = self._dossiers.get(entry.shard)
        if dossier is not None and request.delivery in dossier.record.accused:
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
        if granted and self._owns(self._clock()) and self._lanes[destination].health.operator_pause is None:
            return True
        self._withdraw(request)
        return False

    def survived(self, destination: str, entry: Entry) -> None:
        """An attempt has ended, and the relay has not."""
        dossier = self._dossiers.get(entry.shard)
        if dossier is not None:
            dossier.record.accused.pop((entry.id, destination), None)
        self._end(entry.shard, (entry.id, destination))

    def _withdraw(self, request: Request) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
        elif request in self._trials:
            self._trials.remove(request)
        self._noted.discard(request)
        self._end(request.shard, request.delivery)

    def _end(self, shard: int, delivery: Delivery) -> None:
        dossier = self._dossiers.get(shard)
        if dossier is not None:
            dossier.record.started.discard(delivery)
            dossier.record.is_alone = False
            self._change(shard)
            self._tidy(shard)
        if self._trial is not None and self._trial.delivery == delivery:
            self._trial = None
        if self.is_open:
            for lane in self._lanes.values():
                lane.announce()
        if self._waiting or self._trials:
            self._soon()

    def refuse(self) -> None:
        """Whoever waits for a permit is to look again at what it may do."""
        for request in [*self._waiting, *self._trials, *self._noted]:
            request.resolve(False)

    # --------------------------------------------------------------- writing

    def _change(self, shard: int) -> None:
        self._changed.add(shard)
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(LAZY_S, self._advance)

    def _soon(self, delay_s: float = 0.0) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._advance)

    def _advance(self) -> None:
        """Let through whoever may be: everybody, or one alone; and tell the table."""
        self._alarm = None
        requests: list[Request] = []
        if self._trial is None and self._trials:
            is_quiet = self._is_quiet()
            if is_quiet or self._clock() > self._patient_until:
                self._trial = self._trials.popleft()
                requests = [self._trial]
                self._start(self._trial, is_alone=is_quiet)
            else:
                self._soon(LOOK_S)
        elif self._trial is None:
            requests, self._waiting = self._waiting, []
            for request in requests:
                self._start(request, is_alone=False)
        if requests or self._changed:
            self._noted.update(requests)
            records = {shard: self._record(shard) for shard in self._changed}
            self._changed.clear()
            self.notes.append(Note(self.epoch, records, requests))
            self._on_work()

    def _is_quiet(self) -> bool:
        """Whether nothing is under way but what waits for a permit."""
        under_way = sum(len(lane.queue.under_way) for lane in self._lanes.values())
        return under_way <= len(self._waiting) + len(self._trials)

    def _start(self, request: Request, *, is_alone: bool) -> None:
        record = self._dossiers.setdefault(request.shard, Dossier(Record())).record
        record.started.add(request.delivery)
        record.is_alone = is_alone
        self._changed.add(request.shard)

    def _record(self, shard: int) -> str | None:
        dossier = self._dossiers.get(shard)
        return dossier.record.dump() if dossier is not None else None

    def written(self, notes: Sequence[Note]) -> None:
        """What these notes say stands in the table."""
        for note in notes:
            for request in note.requests:
                self._noted.discard(request)
                request.resolve(True)

    def write(self, session: Session, epoch: int, on_loop: Callable[..., None]) -> None:
        """Write what is to be written. For the owning thread."""
        notes = []
        while self.notes:
            note = self.notes.popleft()
            if note.epoch == epoch:
                notes.append(note)
        if notes:
            records: dict[int, str | None] = {}
            for note in notes:
                records.update(note.records)
            session.note(records)
            on_loop(self.written, notes)


def _why_dead(accused: Accused, attempts: int, max_attempts: int) -> str:
    return (
        f"relays died of it: {accused.crashes} in a row ended while it was under way, at last with nothing else under "
        f"way (attempt {attempts + accused.crashes} of {max_attempts})"
    )


def _why_put_off(accused: Accused) -> str:
    return f"{accused.crashes} relays in a row died, perhaps of this; it is tried again by itself, and not charged yet"
