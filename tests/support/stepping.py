"""Relays that move only when a test tells them to: a whole relay, with its threads and tasks, one step at a time.

The owning thread is the relay's own; it stops before each call of its session, and goes on when the test says so. The
event loop turns only in `spin`, and the test sets every clock but the database's. So a test decides what happens
between any two calls: an operator acts, a session is cut, the process dies, another relay goes ahead.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from threading import Semaphore
from typing import Any

import relay.delivery.crashes.guard
import relay.relay
from outbox import Message
from relay import Relay, Settings
from relay.databases.store.contract import Lost
from relay.decide.outcome import Outcome
from relay.owner.thread import OwningThread

STEP_DEADLINE_S = 60.0
WATCHED = (
    "beat", "take", "give", "read_ready", "read_parked", "read_due", "held_keys", "blocked_keys", "sweep",
    "settle_plain", "settle", "discard", "mark_unrouted", "report", "claim_probe",
    "claim_rate",
)  # fmt: skip

Send = Callable[["SteppedRelay", str, Message], Any]


class Killed(BaseException):
    """The process is gone."""


class Clock:
    """The time of this process, which moves when the test moves it."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop on that clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._stepped_clock = clock

    def time(self) -> float:
        return self._stepped_clock.now


class Baton:
    """Passes control between a test and an owning thread: exactly one of them moves."""

    def __init__(self) -> None:
        self.at = "nothing"  # what the thread is about to do
        self.killed = self.ended = False
        self._go, self._parked = Semaphore(0), Semaphore(0)

    def park(self, at: str) -> None:
        """Stop here until told to go on; the thread calls it."""
        self.at = at
        self._parked.release()
        self._go.acquire()
        if self.killed:
            raise Killed

    def end(self) -> None:
        """Say that the thread has ended; the thread calls it."""
        self.ended = True
        self._parked.release()

    def go_on(self) -> None:
        """Let the thread move to its next stop; the test calls it."""
        if not self.ended:
            self._go.release()
            self.wait()

    def wait(self) -> None:
        assert self._parked.acquire(timeout=STEP_DEADLINE_S), f"the owning thread is stuck in {self.at}"


class SteppedOwner(OwningThread):
    """An owning thread that stops before each statement to the database."""

    baton: Baton

    def start(self) -> None:
        self.baton = self._store.baton  # type: ignore[attr-defined]
        super().start()
        self.baton.wait()

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            self.baton.end()

    def _wait(self, session_loop: Any) -> None:
        self.baton.park("wait")

    def _pause(self, seconds: float) -> None:
        self.baton.park("pause")


class SteppedStore:
    """Opens sessions that stop before each call."""

    def __init__(self, store: Any, clock: Clock) -> None:
        self.store, self.clock, self.baton = store, clock, Baton()
        self.session: SteppedSession | None = None
        self.cut_count = 0
        self.asked_at = -1e9  # the time of the last statement that was answered
        self.saw_paused: set[str] = set()

    def open(self, *arguments: Any) -> Any:
        self.baton.park("open")
        self.session = SteppedSession(self, self.store.open(*arguments))
        return self.session


class SteppedSession:
    """A session that stops before each call, and can be cut before or after the next."""

    def __init__(self, store: SteppedStore, session: Any) -> None:
        self._store, self._session = store, session
        self.ownership, self.reading = SteppedPart(self, session.ownership), SteppedPart(self, session.reading)
        self.settling, self.waking = SteppedPart(self, session.settling), session.waking
        self.cut: str | None = None

    def step(self, name: str, call: Callable[[], Any]) -> Any:
        """Wait for the test; then call, and note the answer for it."""
        self._store.baton.park(name)
        asked_at = self._store.clock.now
        if self.cut == "before":
            self._lose()
        answer = call()
        if self.cut == "after":
            self._lose()
        self._store.asked_at = asked_at
        if name == "beat":
            self._store.saw_paused = {n for n, each in answer.shared_states.items() if each.paused_by == "operator"}
        return answer

    def _lose(self) -> None:
        raise Lost("the session was cut")

    def close(self) -> None:
        if self._store.baton.killed or self.cut:
            self.hang_up()
        else:
            self._session.close()

    def hang_up(self) -> None:
        """End the session as a death does: without a message to the server, which finds out."""
        self._session.connection.bare.close()
        if hasattr(self._session, "_lock"):
            self._session._lock.release()


class SteppedPart:
    """A part of a stepped session."""

    def __init__(self, session: SteppedSession, part: Any) -> None:
        self._session, self._part = session, part

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name not in WATCHED:
            return found
        return lambda *arguments, **options: self._session.step(name, partial(found, *arguments, **options))


class NoHousekeeping:
    """No periodic work: a test does it when it wants to."""

    def __init__(self, settings: Settings, **_: object) -> None:
        self.settings = settings

    def start(self) -> None:
        """Do nothing: no job runs by itself."""

    def stop(self) -> None:
        """Do nothing: it was never started."""


class SteppedRelay:
    """A relay under a test's control."""

    def __init__(self, stage: Stage, settings: Settings) -> None:
        self.stage = stage
        self.relay = Relay(settings)
        stage.loop.run_until_complete(self.relay.start())
        self.owner: Any = self.relay._running.owner
        self.store: SteppedStore = self.owner._store
        self.knows_paused: set[str] = set()
        self.is_alive = True
        for name, pool in self.relay._running.loop_side.pools.items():
            pool._send = self._sender(name)

    def _sender(self, name: str) -> Callable[[Message], Any]:
        async def send(message: Message) -> Outcome:
            return await self.stage.send(self, name, message)  # type: ignore[no-any-return]

        return send

    @property
    def is_stopping(self) -> bool:
        return self.relay._winding_down is not None

    def step(self, count: int = 1) -> None:
        """Let the relay make this number of database calls, at most to the end of a turn."""
        for _ in range(count):
            self.store.baton.go_on()
            if self.store.baton.at in ("wait", "pause"):
                return

    def cut(self, when: str) -> None:
        """Have the session lost: before its next call does anything, or after that, together with the answer."""
        if self.store.session is not None and self.store.session.cut is None:
            self.store.session.cut = when
            self.store.cut_count += 1

    def kill(self) -> None:
        """End as by SIGKILL: the database finds its connection closed without a goodbye."""
        self.is_alive = False
        ending = self.relay._winding_down
        if ending is not None and self.store.baton.ended:
            self.stage.loop.run_until_complete(ending)  # too late: it has ended in order
            return
        self.store.baton.killed = True
        self.store.baton.go_on()
        self.owner.close()
        pools = self.relay._running.loop_side.pools.values()
        for pool in pools:
            pool._is_stopped = True  # or it would replace the workers
        tasks = [task for pool in pools for task in pool._tasks]
        tasks += [t for t in (self.relay._running.ticker, ending) if t is not None]
        for task in tasks:
            task.cancel()
        self.stage.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def begin_to_stop(self) -> None:
        async def stop() -> None:
            self.relay.stop()

        self.stage.loop.run_until_complete(stop())

    def has_stopped(self) -> bool:
        ending = self.relay._winding_down
        if ending is None or not ending.done():
            return False
        self.is_alive = False
        ending.result()
        self.relay._raise_error()
        return True


class Stage:
    """The place of stepped relays; while it is set, all relays in this process use its clock.

    Args:
        send: Called, on the loop, for each attempt; returns an awaitable of its outcome.
    """

    def __init__(self, send: Send) -> None:
        self.send = send
        self.clock = Clock()
        self.relays: list[SteppedRelay] = []
        self._replaced: list[tuple[Any, str, Any]] = []
        self.loop = SteppedLoop(self.clock)
        self._set()

    def _set(self) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("relay.") and getattr(module, "monotonic", None) is time.monotonic:
                self._put(module, "monotonic", self.clock)
        open_store = relay.relay.open_store
        self._put(relay.relay, "open_store", lambda settings: SteppedStore(open_store(settings), self.clock))
        self._put(relay.relay, "OwningThread", SteppedOwner)
        self._put(relay.relay, "Housekeeping", NoHousekeeping)
        self._put(relay.delivery.crashes.guard, "CALM_S", 0.01)  # goes by the database's clock, not the test's

    def _put(self, place: Any, name: str, value: Any) -> None:
        self._replaced.append((place, name, getattr(place, name)))
        setattr(place, name, value)

    @property
    def alive(self) -> list[SteppedRelay]:
        return [each for each in self.relays if each.is_alive]

    def start(self, settings: Settings) -> SteppedRelay:
        started = SteppedRelay(self, settings)
        self.relays.append(started)
        return started

    def spin(self, turns: int = 12) -> None:
        """Turn the loop this number of times."""

        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())
        for each in self.alive:
            each.knows_paused = each.store.saw_paused

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    def close(self) -> None:
        for each in self.alive:
            each.kill()
        self.loop.close()
        while self._replaced:
            setattr(*self._replaced.pop())
