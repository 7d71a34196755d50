"""A relay in the simulated world: all parts of the real one except the thread, the pipe and the database.

Dispatcher, lanes, queues, breakers, workers, crash guard, reader, settler and ownership are the product's. A task does
here what the owning thread does turn by turn. What it hands to the event loop arrives in order, a moment later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from simulation.clock import Clock
from simulation.session import ModelSession

from outbox import Message
from outbox.tables import SHARD_COUNT
from relay.databases.store.contract import Lost
from relay.decide.backoff import Policy
from relay.decide.outcome import Outcome
from relay.decide.rate import Rate
from relay.delivery import assembly as loop_assembly
from relay.owner.session_loop import WORTH_A_TURN, SessionLoop
from relay.owner.settler import Unconfirmed
from relay.seam import Lease, OwnerEvents, OwnersSeam, ToOwner, posted
from relay.seam.supervision import Supervisor

TURN_S = 0.002  # how long a turn of the owning thread takes
LATEST_S = 0.01  # how long a hand-over to the event loop takes at most
RECONNECT_S = 0.3
TYPE = "page.read"


@dataclass
class Plan:
    """How a destination is set up."""

    name: str
    concurrency: int = 4
    batch: int = 1
    on_dead: str = "block"
    max_attempts: int = 4
    backoff_s: float = 0.2
    backoff_max_s: float = 2.0
    events: list[str] = field(default_factory=lambda: ["*"])
    rate: Rate | None = None

    kind: str = "simulated"
    expires_in: float | None = None

    @property
    def retry_policy(self) -> Policy:
        return Policy(self.max_attempts, 1e6, self.backoff_s, self.backoff_max_s)

    @property
    def rate_limit(self) -> Rate | None:
        return self.rate


@dataclass
class Knobs:
    """Those of a relay's settings that its parts use."""

    destinations: Mapping[str, Plan]
    window: int = 32
    page_size: int = 8
    beat_s: float = 0.5
    lease_s: float = 15.0
    short_poll_s: float = 0.05
    slow_poll_s: float = 0.05
    quiet_s: float = 1e9


class NoMetrics:
    """Counts nothing."""

    def __getattr__(self, name: str) -> NoMetrics:
        return self

    def __call__(self, *_: object, **__: object) -> NoMetrics:
        return self


class SimDestination:
    """A destination whose answers the world decides.

    Args:
        plan: How it is set up.
        relay: Who sends.
        send: Called with the relay, the plan and the messages; returns one outcome or several.
    """

    def __init__(self, plan: Plan, relay: SimRelay, send: Callable[..., Any]) -> None:
        self.name, self.concurrency, self.batch_size = plan.name, plan.concurrency, plan.batch
        self._plan, self._relay, self._send = plan, relay, send

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def may_share(self, message: Message) -> bool:
        return True

    async def send(self, message: Message) -> Outcome:
        outcome = await self._send(self._relay, self._plan, [message])
        assert isinstance(outcome, Outcome)
        return outcome

    async def send_many(self, messages: list[Message]) -> Any:
        return await self._send(self._relay, self._plan, messages)


class SimRelay:
    """One relay process.

    Args:
        id_: Its name.
        knobs: Its settings.
        clock: The time.
        chance: Decides how long things take.
        open_session: Opens a session; may raise `Lost`.
        send: See `SimDestination`.
        on_failure: Called with the error of a part that should never end.
    """

    def __init__(
        self,
        id_: str,
        knobs: Knobs,
        clock: Clock,
        chance: Random,
        *,
        open_session: Callable[[str], ModelSession],
        send: Callable[..., Any],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.id, self.knobs, self.clock, self.chance = id_, knobs, clock, chance
        self._open_session = open_session
        self.supervisor = Supervisor(on_failure)
        self.lease = Lease(knobs.lease_s)
        self.heard = ToOwner(lambda: None, window=knobs.window)
        loop_side = loop_assembly.assemble(
            [SimDestination(plan, self, send) for plan in knobs.destinations.values()],
            knobs.destinations,  # type: ignore[arg-type]
            owner=self.heard,
            lease=self.lease,
            window=knobs.window,
            metrics=NoMetrics(),  # type: ignore[arg-type]
            supervisor=self.supervisor,
            clock=clock,
        )
        self.loop_side, self.dispatcher, self.pools = loop_side, loop_side.dispatcher, loop_side.pools
        events = OwnerEvents(dismissed=on_failure, owner_ended=lambda _: None)
        tell, told = posted(self.dispatcher, self._on_loop), posted(events, self._on_loop)
        crashes = posted(self.dispatcher.crash_guard, self._on_loop)
        self.seam = OwnersSeam(tell, crashes, told, self.heard, self.dispatcher, self.lease)
        self.session: ModelSession | None = None
        self.is_alive = True
        self.is_stopping = False
        self.session_loop: SessionLoop | None = None
        self._unconfirmed: Unconfirmed = []
        self._held_before: list[int] | None = None
        self._handed_over: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    def may_send(self, now: float) -> bool:
        """Return whether this relay knows that it owns its shards."""
        return self.lease.is_held(now)

    # ---------------------------------------------------------------- life

    async def start(self) -> None:
        await self.loop_side.start()
        self._tasks = [self.supervisor.start(self._own(), f"{self.id} owns")]

    def kill(self) -> None:
        """End at once, as by SIGKILL."""
        self.is_alive = False
        self.lease.end()
        if self.session is not None:
            self.session.cut()
        for pool in self.pools.values():
            pool._is_stopped = True  # or it would replace the workers
        for task in [*self._tasks, *(t for pool in self.pools.values() for t in pool._tasks)]:
            task.cancel()

    async def stop(self) -> None:
        """Stop in order, as by SIGTERM."""
        self.is_stopping = True
        self.lease.end()
        await self.loop_side.finish(5.0)
        await asyncio.wait(self._tasks, timeout=10.0)
        self.kill()

    async def _own(self) -> None:
        while self.is_alive and not (self.is_stopping and self.dispatcher.is_empty):
            try:
                self.session = self._open_session(self.id)
                await self._serve(self.session)
            except Lost:
                self._lose()
                await asyncio.sleep(RECONNECT_S * self.chance.random())
            finally:
                if self.session is not None:
                    self.session.cut()

    async def _serve(self, session: ModelSession) -> None:
        epoch = self.lease.begin_session()
        self.seam.tell.begin_session(epoch)
        session_loop = self.session_loop = self._session_loop_of(session, epoch)
        session_loop.begin()
        while self.is_alive and not (self.is_stopping and self.dispatcher.is_empty):
            if self.is_stopping:
                session_loop.wind_down()
            asked_at = self.clock()
            count = session_loop.turn()
            self.lease.renew(asked_at)
            pause_s = TURN_S if count >= WORTH_A_TURN else self.knobs.short_poll_s
            await asyncio.sleep(pause_s * (0.5 + self.chance.random()))
        session_loop.end()

    def _session_loop_of(self, session: ModelSession, epoch: int) -> SessionLoop:
        knobs: Any = self.knobs
        metrics: Any = NoMetrics()
        return SessionLoop(
            session,
            epoch,
            self.seam,
            knobs,
            generation=1,
            held_before=self._held_before,
            unconfirmed=self._unconfirmed,
            metrics=metrics,
            clock=self.clock,
        )

    def _lose(self) -> None:
        self.lease.lose()
        self.seam.tell.release(range(SHARD_COUNT))
        if self.session_loop is not None:
            self._held_before = self.session_loop.shards or self._held_before or []
        self.session_loop = None

    def _on_loop(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function of the thread on the loop, in order, a moment later."""
        self._handed_over.append((function, arguments))
        asyncio.get_running_loop().call_later(LATEST_S * self.chance.random(), self._arrive)

    def _arrive(self) -> None:
        if self.is_alive and self._handed_over:
            function, arguments = self._handed_over.popleft()
            self.supervisor.call(function, *arguments)
