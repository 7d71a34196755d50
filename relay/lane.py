"""One destination's lane: the workers that send what waits for it.

`relay.waiting` has the entries and their order, `relay.judging` what becomes of them and of the destination; here they
are sent. No task per message: a worker takes one entry after the other, and sleeps when there is none.

A destination that takes batches gets, while it is healthy, as many entries at once as are waiting. Heads of chains are
all that waits in the queue, so no batch holds two of one key. What was part of a batch that was not taken goes alone
from then on: whose fault it was shows as it does for any other entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import structlog

from outbox import Message
from relay.decide.outcome import TAKEN, Outcome, failed
from relay.decide.verdict import PARKED
from relay.destinations.contract import BATCH_BYTES, BatchDestination, Destination
from relay.entry import Entry
from relay.judging import DOWN, Judging

log = structlog.get_logger("relay")

LOOK_AGAIN_S = 0.02  # while this relay does not know that it owns what it holds
TURN_S = 0.005  # a worker that never has to wait lets the others run this often
NOBODYS_FAULT = ("unreachable", "throttled", "gone")


class Lane(Judging):
    """The way to one destination.

    Args:
        destination: Where it goes.
        may_send: Whether this relay knows that it owns what it holds.
        options: See `relay.judging.Judging` and `relay.waiting.Waiting`.
    """

    def __init__(self, destination: Destination, *, may_send: Callable[[float], bool], **options: Any) -> None:
        super().__init__(destination.name, **options)
        self.destination = destination
        batches = destination if isinstance(destination, BatchDestination) else None
        self._batches = batches if batches is not None and batches.batch_size > 1 else None
        self.stopped = False
        self.epoch: int | None = None  # of the session that owns now: what another one read is not sent any more
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

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing happens here, nor will before some time has passed."""
        return not self._under_way and (
            not self.size or self.operator_pause is not None or self.blame.condition in DOWN
        )

    def count_under_way(self) -> int:
        return len(self._under_way)

    def is_healthy(self) -> bool:
        return self.is_open

    @property
    def under_way(self) -> list[Entry]:
        """What is being attempted at this moment."""
        return list(self._under_way.values())

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
            try:
                outcome = await self.destination.send(entry.message)
            except Exception as error:
                outcome = self._broke(entry.message, error)
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
        if blame.end_wait(now):
            self._turned("throttled", now)
        if blame.condition == "healthy":
            entry = self._pick(newest=False)
        elif blame.may_start(now) and self._may_probe_or_asks():
            self._probe_newest = not self._probe_newest
            entry = self._pick(newest=self._probe_newest)
            if entry is not None:
                blame.start()
        else:
            return None
        if entry is not None:
            self._under_way[entry.handle] = entry
        return entry

    def _pick(self, *, newest: bool) -> Entry | None:
        """The next that may be sent: what was under way when its session ended, and failed since, is read again."""
        while self._queue:
            entry = self._queue.pop() if newest else self._queue.popleft()
            if self.epoch is None or entry.epoch == self.epoch:
                return entry
            self._decide(entry, PARKED)
        return None

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


def _may_share(destination: BatchDestination, entry: Entry) -> bool:
    return not entry.alone and entry.caution is None and destination.may_share(entry.message)


def _ring(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
