"""The workers of one destination: they send the entries that its lane chooses, and tell the lane the outcomes.

There is no task per message: a worker takes one entry after the other, and sleeps when there is none. A healthy
destination that takes batches gets as many waiting entries at once as fit. Only heads of chains may be sent: no batch
holds two entries of one key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from outbox import Message
from relay.decide.outcome import Outcome, failed
from relay.delivery.lane import Lane
from relay.destinations.contract import BATCH_BYTES, BatchDestination, Destination
from relay.observe.payload import ValuesOf, concealing, concealing_many
from relay.observe.supervision import Supervisor
from relay.observe.tracing import SYSTEM, sending, sending_many
from relay.seam import Entry

log = structlog.get_logger("relay")

TURN_S = 0.005  # a worker that never waits yields to other tasks this often


class Idle:
    """The workers of one destination that wait for something to send."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def wake(self, count: int) -> None:
        """Have up to `count` workers, and at least one, look for something to send."""
        for _ in range(min(len(self._waiters), max(count, 1))):
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_result(None)

    def add(self) -> asyncio.Future[None]:
        """Return the future that a worker waits on."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def remove(self, waiter: asyncio.Future[None]) -> None:
        """Forget a worker that does not wait any more."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)


class WorkerPool:
    """The workers of one destination, one for each attempt that may be under way at once.

    Args:
        destination: The destination.
        lane: Chooses the entries.
        idle: The waiting workers; the lane wakes them.
        supervisor: Ends the relay when a worker ends by an error.
        clock: The time, in seconds.
        system: What kind of system the destination is, in traces.
        values_of: Returns the values of a message that logs and reasons must not show; ``None``: there are none.
    """

    def __init__(
        self,
        destination: Destination,
        lane: Lane,
        idle: Idle,
        *,
        supervisor: Supervisor,
        clock: Callable[[], float],
        system: str = SYSTEM,
        values_of: ValuesOf | None = None,
    ) -> None:
        self.destination = destination
        self._lane, self._idle = lane, idle
        self._clock = clock
        self._supervisor = supervisor
        batches = destination if isinstance(destination, BatchDestination) else None
        self._batches = batches if batches is not None and batches.batch_size > 1 else None
        self._send = sending(lane.name, system, concealing(destination.send, values_of))
        self._send_many = (
            sending_many(lane.name, system, concealing_many(self._batches.send_many, values_of))
            if self._batches
            else None
        )
        self._is_stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._turn_ends = 0.0

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Make the destination ready, and start the workers."""
        await self.destination.start()
        names = (f"worker {i} of {self._lane.name}" for i in range(self.destination.concurrency))
        self._tasks = [self._supervisor.start(self._work(), name) for name in names]

    async def finish(self, grace_s: float) -> None:
        """Start no more attempts; wait for those under way."""
        self._is_stopped = True
        self._idle.wake(len(self._idle))
        if self._tasks:
            _done, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stop_alarm()

    # -------------------------------------------------------------- going out

    async def _work(self) -> None:
        lane, name = self._lane, self._lane.name
        while not self._is_stopped:
            now = self._clock()
            if now > self._turn_ends:
                await asyncio.sleep(0)
                self._turn_ends = self._clock() + TURN_S
                continue  # it may have been stopped in the meantime
            entry = lane.next(now)
            if entry is None:
                await self._sleep(now)
                continue
            if self._batches is not None and (others := self._companions(self._batches, entry, now)):
                await self._send_together([entry, *others], now)
                continue
            if entry.guard is not None:
                if not await entry.guard.permit(name, entry):
                    lane.withdraw(entry)
                    continue
                now = self._clock()
            try:
                outcome = await self._send(entry.message)
            except Exception as error:
                outcome = self._broke(entry.message, error)
            if entry.guard is not None:
                entry.guard.survived(name, entry)
            lane.finish(entry, outcome, now)

    def _broke(self, message: Message, error: Exception) -> Outcome:
        log.error("destination_broke", destination=self._lane.name, message_id=message.id, exc_info=error)
        return failed(f"{type(error).__name__}: {error}")

    def _companions(self, destination: BatchDestination, first: Entry, now: float) -> list[Entry]:
        """Return the waiting entries that may go in one batch with the first; they are under way from here on."""
        if not _may_share(destination, first):
            return []
        room_bytes = BATCH_BYTES - len(first.message.body)

        def may_follow(entry: Entry) -> bool:
            nonlocal room_bytes
            room_bytes -= len(entry.message.body)
            return room_bytes >= 0 and _may_share(destination, entry)

        return self._lane.companions(may_follow, destination.batch_size - 1, now)

    async def _send_together(self, batch: list[Entry], now: float) -> None:
        assert self._send_many is not None
        outcomes: Outcome | Sequence[Outcome]
        try:
            outcomes = await self._send_many([entry.message for entry in batch])
        except Exception as error:
            outcomes = self._broke(batch[0].message, error)
        self._lane.finish_batch(batch, outcomes, now)

    # --------------------------------------------------------------- waiting

    async def _sleep(self, now: float) -> None:
        """Sleep until an entry may be sent."""
        waiter = self._idle.add()
        self._set_alarm(now)
        try:
            await waiter
        finally:
            self._idle.remove(waiter)

    def _set_alarm(self, now: float) -> None:
        """Set one timer for all workers: it wakes them when a waiting entry may be sent without another event."""
        at = self._lane.next_at(now)
        self._stop_alarm()
        if at is not None:
            self._alarm = asyncio.get_running_loop().call_later(max(at - now, 0.0), self._ring)

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        self._lane.announce()


def _may_share(destination: BatchDestination, entry: Entry) -> bool:
    return not entry.alone and entry.guard is None and destination.may_share(entry.message)
