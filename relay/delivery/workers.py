"""The workers of one destination: they send the entries that its lane chooses, and tell the lane the outcomes.

There is no task per message: a worker takes one entry after the other, and sleeps when there is none. A healthy
destination that takes batches gets as many waiting entries at once as fit into a batch. Only heads of chains may be
sent, so no batch holds two entries of one key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from outbox import Message
from relay.decide.outcome import TAKEN, Outcome, checked, failed
from relay.delivery.lane import Lane
from relay.destinations.contract import BATCH_BYTES, BatchDestination, Destination
from relay.observe.errors import in_words, is_for_the_task
from relay.observe.payload import ValuesOf, concealing
from relay.observe.tracing import SYSTEM, sending
from relay.seam import Entry
from relay.seam.supervision import Supervisor

log = structlog.get_logger("relay")

TURN_S = 0.005  # how often a worker that never waits yields to other tasks


class WorkerPool:
    """The workers of one destination, one for each attempt that may be under way at once.

    Args:
        destination: The destination.
        lane: Chooses the entries, and wakes workers that wait.
        supervisor: Ends the relay when a worker ends by an error.
        clock: The time, in seconds.
        system: The name of the destination's kind of system in traces.
        values_of: Returns the values of a message that logs and reasons must not show; ``None``: there are none.
    """

    def __init__(
        self,
        destination: Destination,
        lane: Lane,
        *,
        supervisor: Supervisor,
        clock: Callable[[], float],
        system: str = SYSTEM,
        values_of: ValuesOf | None = None,
    ) -> None:
        self.destination = destination
        self._lane, self._clock = lane, clock
        self._supervisor = supervisor
        batches = destination if isinstance(destination, BatchDestination) else None
        self._batches = batches if batches is not None and batches.batch_size > 1 else None
        self._send = sending(lane.name, system, concealing(destination.send, values_of))
        self._send_many = (
            sending(lane.name, system, concealing(self._batches.send_many, values_of)) if self._batches else None
        )
        self._waiters: list[asyncio.Future[None]] = []
        lane.on_ready = self.wake
        self._is_stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._turn_ends = 0.0

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Make the destination ready, and start the workers."""
        await self.destination.start()
        names = (f"worker {i} of {self._lane.name}" for i in range(self.destination.concurrency))
        self._tasks = [self._start(name) for name in names]

    def _start(self, name: str) -> asyncio.Task[None]:
        task = self._supervisor.start(self._work(), name)
        task.add_done_callback(self._replace)
        return task

    def _replace(self, task: asyncio.Task[None]) -> None:
        """Start another worker for one that the code of an attempt cancelled."""
        if not self._is_stopped and (task.cancelled() or task.exception() is None):
            self._tasks[self._tasks.index(task)] = self._start(task.get_name())

    async def finish(self, grace_s: float) -> None:
        """Start no more attempts; wait for those under way."""
        self._is_stopped = True
        self.wake(len(self._waiters))
        if self._tasks:
            _done, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stop_alarm()

    # -------------------------------------------------------------- going out

    async def _work(self) -> None:
        lane, name = self._lane, self._lane.name
        task = asyncio.current_task()
        assert task is not None
        while not self._is_stopped and not task.cancelling():
            now = self._clock()
            if now > self._turn_ends:
                await asyncio.sleep(0)
                self._turn_ends = self._clock() + TURN_S
                continue  # it may have been stopped in the meantime
            entry = lane.next(now)
            if entry is None:
                await self._sleep(now)
                continue
            message = entry.new_message()
            if self._batches is not None and (others := self._companions(self._batches, entry, message, now)):
                await self._send_together({entry: message} | others, now)
                continue
            if entry.guard is not None:
                if not await entry.guard.permit(name, entry):
                    lane.withdraw(entry)
                    continue
                now = self._clock()
            try:
                outcome = await self._send(message)
                if outcome is not TAKEN:
                    outcome = checked(outcome)
            except BaseException as error:
                outcome = self._broke(entry, error)
            if entry.guard is not None:
                entry.guard.survived(name, entry)
            lane.finish(entry, outcome, now)

    def _broke(self, entry: Entry, error: BaseException) -> Outcome:
        """Return the outcome of an attempt that raised an error; reraise an error that concerns the worker's task."""
        if is_for_the_task(error):
            if self._is_stopped or not isinstance(error, asyncio.CancelledError):
                raise error
            return failed("the attempt cancelled the task that it ran in")
        log.error("destination_broke", destination=self._lane.name, message_id=entry.id, exc_info=error)
        return checked(failed(in_words(error)))

    def _companions(
        self, destination: BatchDestination, first: Entry, message: Message, now: float
    ) -> dict[Entry, Message]:
        """Return the waiting entries that may go in one batch with the first; they are under way from here on."""
        if not _may_share(destination, first, message):
            return {}
        room_bytes = BATCH_BYTES - len(message.body)
        messages: dict[Entry, Message] = {}

        def may_follow(entry: Entry) -> bool:
            nonlocal room_bytes
            messages[entry] = message = entry.new_message()
            room_bytes -= len(message.body)
            return room_bytes >= 0 and _may_share(destination, entry, message)

        others = self._lane.companions(may_follow, destination.batch_size - 1, now)
        return {entry: messages[entry] for entry in others}

    async def _send_together(self, sent: Mapping[Entry, Message], now: float) -> None:
        assert self._send_many is not None
        batch = list(sent)
        outcomes: Outcome | Sequence[Outcome]
        try:
            outcomes = await self._send_many(list(sent.values()))
            if outcomes is not TAKEN:
                outcomes = _each_checked(outcomes, batch)
        except BaseException as error:
            outcomes = self._broke(batch[0], error)
        self._lane.finish_batch(batch, outcomes, now)

    # --------------------------------------------------------------- waiting

    def wake(self, count: int) -> None:
        """Wake up to `count` waiting workers, and at least one, to look for something to send."""
        for _ in range(min(len(self._waiters), max(count, 1))):
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_result(None)

    async def _sleep(self, now: float) -> None:
        """Sleep until an entry may be sent."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._set_alarm(now)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

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


def _each_checked(outcomes: Outcome | Sequence[Outcome], batch: Sequence[Entry]) -> Outcome | Sequence[Outcome]:
    if isinstance(outcomes, Outcome):
        return checked(outcomes)
    found = [checked(each) for each in outcomes]
    if len(found) != len(batch):
        raise TypeError(f"it returned {len(found)} outcomes for {len(batch)} messages")
    return found


def _may_share(destination: BatchDestination, entry: Entry, message: Message) -> bool:
    """Return whether an entry may go in a batch. If the destination cannot tell, the entry goes alone."""
    if entry.alone or entry.guard is not None:
        return False
    try:
        return bool(destination.may_share(message))
    except BaseException as error:
        if is_for_the_task(error):
            raise
        log.exception("destination_broke", destination=destination.name, message_id=entry.id)
        return False
