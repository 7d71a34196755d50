"""The relay: what ties destinations, dispatcher and owning thread together."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Self

import structlog

from outbox.errors import Unusable
from outbox.tables import SHARD_COUNT
from relay.admin.housekeeping import Housekeeping
from relay.admin.leftover import Left, what_is_left
from relay.admin.timeline.sampling import Sampler
from relay.decide.backoff import Policy
from relay.decide.standing import Finding
from relay.delivery.dispatcher import Dispatcher
from relay.delivery.entry import Entry
from relay.delivery.lane import Lane
from relay.delivery.rate_limit import Claim, RateLimit
from relay.delivery.supervision import Supervisor
from relay.delivery.workers import WorkerPool
from relay.destinations.contract import Destination, InProcess
from relay.destinations.registry import build
from relay.observe import tracing
from relay.observe.metrics import Metrics
from relay.owner.startup import register_configured
from relay.owner.thread import OwningThread
from relay.settings import DestinationSettings, Settings, load
from relay.store import open_store

log = structlog.get_logger("relay")

TICK_S = 0.25
SETTLED_WITHIN_S = 1.0  # what a drain has decided, before it looks at what it left


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain came to.

    Args:
        delivered: Messages that every destination took.
        partly: Messages that only some of their destinations took.
        reason: Why it ended before everything was looked at, if so.
        standing_by: Whether that is because another relay owns the database's messages now.
        left: What is due and was not delivered, and why; empty when everything was, or when nothing could be seen.
    """

    delivered: int
    partly: int = 0
    reason: str | None = None
    standing_by: bool = False
    left: Sequence[Left] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """How the relay is.

    Args:
        database: Whether it has a session.
        schema: Whether that session's schema fits.
        loop_age_s: Seconds since the event loop last turned.
        owns: How many shards it owns.
        detail: What is wrong, if anything is.
    """

    database: bool
    schema: bool
    loop_age_s: float
    owns: int
    detail: str


class Relay:
    """Delivers what the outbox holds.

    Args:
        settings: Everything; by default what the environment and ``outbox.toml`` say.
        apply: Register the configured destinations when others are registered.
        wait_for_database: Whether to wait, for as long as it takes, for a database that cannot be reached at the start.

    Raises:
        Unusable: When it starts: the settings, the schema or the registered destinations do not allow it to work.

    Example:
        >>> async with Relay(Settings(database_url="postgresql://localhost/app", destinations={...})) as relay:
        ...     await relay.wait()
    """

    def __init__(
        self, settings: Settings | None = None, *, apply: bool = False, wait_for_database: bool = True
    ) -> None:
        self.settings = settings if settings is not None else load()
        self.id = f"{socket.gethostname()}-{os.getpid()}-{random.randrange(16**4):04x}"  # noqa: S311
        self.metrics = Metrics()
        self._apply = apply
        self._wait_for_database = wait_for_database
        self._ended = asyncio.Event()
        self._error: BaseException | None = None
        self._owner: OwningThread | None = None
        self._dispatcher: Dispatcher | None = None
        self._pools: dict[str, WorkerPool] = {}
        self._supervisor = Supervisor(self._on_end_of_a_part)
        self._winding_down: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._housekeeping: Housekeeping | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._winding_down is not None:
            await self._winding_down
        if error is None:
            self._raise_error()

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Check everything that can be checked, register, and begin."""
        settings = self.settings
        settings.require_database_file()
        tracing.configure(children=settings.trace_children)
        destinations = {name: build(name, s, settings.database) for name, s in settings.destinations.items()}
        generation = await register_configured(settings, apply=self._apply, wait_for_database=self._wait_for_database)
        loop = asyncio.get_running_loop()
        lanes = [self._lane(destinations[name], s) for name, s in settings.destinations.items()]
        self._dispatcher = Dispatcher(
            lanes,
            {name: s.events for name, s in settings.destinations.items()},
            window=settings.window,
            owns=self._owns,
            metrics=self.metrics,
            on_work=self._on_work,
        )
        self._owner = OwningThread(
            open_store(settings),
            self._dispatcher,
            loop,
            settings,
            relay_id=self.id,
            generation=generation,
            metrics=self.metrics,
            in_process=[each for each in destinations.values() if isinstance(each, InProcess)],
            supervisor=self._supervisor,
            on_dismissal=self._on_dismissal,
            on_end=self._on_end,
        )
        self._let_metrics_watch(self._dispatcher, self._owner)
        for lane in lanes:
            pool = WorkerPool(
                destinations[lane.name],
                lane,
                supervisor=self._supervisor,
                clock=monotonic,
                system=tracing.system_of(settings.destinations[lane.name].kind),
            )
            self._pools[lane.name] = pool
            await pool.start()
        self._ticker = self._supervisor.start(self._tick(), "ticker")
        self._housekeeping = Housekeeping(
            settings,
            relay_id=self.id,
            backlog=self.metrics.backlog,
            sampler=Sampler(self.metrics.registry, self.id),
        )
        self._housekeeping.start()
        self._owner.start()
        log.info("relay_started", relay=self.id, destinations=sorted(settings.destinations))

    def stop(self) -> None:
        """Begin the orderly end: start nothing more, settle what is under way within ``grace_s``, hand back."""
        if self._owner is None:
            self._ended.set()
        elif self._winding_down is None:
            log.info("relay_stopping", relay=self.id, grace_s=self.settings.grace_s)
            self._owner.stop(monotonic() + self.settings.grace_s)
            self._winding_down = asyncio.create_task(self._wind_down(), name="outbox-winding-down")

    async def wait(self) -> None:
        """Until the relay has ended, by `stop` or by itself.

        Raises:
            Unusable: It ended by itself, because it can do no work here any more.
        """
        await self._ended.wait()
        if self._winding_down is not None:
            await self._winding_down
        self._raise_error()

    async def drain(self, *, look: bool = True) -> Drained:
        """Deliver everything that can be delivered now.

        What waits for a backoff, a due date, a paused destination or another relay's shards is left to wait. A database
        that is lost on the way is waited for as long as one that is not there at the beginning.

        Args:
            look: Whether to look at what is left, over a connection of its own.
        """
        assert self._dispatcher is not None
        assert self._owner is not None
        self._dispatcher.crash_guard.hurry()
        before, partly_before = self._dispatcher.delivered_count, self._dispatcher.partly_delivered_count
        patience_s = 2 * self.settings.beat_s + 1
        began_at = monotonic()
        deadline = began_at + patience_s
        trouble, reason = self._owner.trouble, None
        while not self._is_drained():
            if self._ended.is_set():
                self._raise_error()
                break
            if not trouble.reason:
                deadline = monotonic() + patience_s
            elif monotonic() > deadline:
                reason = trouble.reason
                break
            await asyncio.sleep(0.002)
        seen = look and (reason is None or trouble.is_standing_by)
        left = await self._look_at_what_is_left(began_at) if seen else ()
        return Drained(
            self._dispatcher.delivered_count - before,
            self._dispatcher.partly_delivered_count - partly_before,
            reason,
            trouble.is_standing_by,
            left,
        )

    async def _look_at_what_is_left(self, began_at: float) -> Sequence[Left]:
        """Look when the table knows what each destination took, also of messages that another did not take."""
        dispatcher = self._dispatcher
        assert dispatcher is not None
        failing = {
            lane.name: reason for lane in dispatcher.lanes.values() if (reason := lane.breaker.suspicion) is not None
        }
        for _ in range(2):  # what has been decided in part at the first is settled in part at the second
            dispatcher.split()
        self._on_work()
        deadline = monotonic() + SETTLED_WITHIN_S
        while dispatcher.is_settling and monotonic() < deadline:  # noqa: ASYNC110 (another thread settles)
            await asyncio.sleep(0.002)
        return await asyncio.to_thread(what_is_left, self.settings, began_at, failing)

    def health(self) -> Health:
        owner = self._owner
        if owner is None:
            return Health(False, False, 0.0, 0, "starting")
        trouble = owner.trouble.reason
        return Health(trouble is None, trouble is None, owner.loop_age_s, len(owner.shards), trouble or "")

    # -------------------------------------------------------------- beginning

    def _lane(self, destination: Destination, s: DestinationSettings) -> Lane:
        limit = s.rate_limit
        return Lane(
            destination.name,
            policy=Policy(s.max_attempts, s.give_up_after_s, s.backoff_s, s.backoff_max_s),
            concurrency=destination.concurrency,
            limit=max(self.settings.window // len(self.settings.destinations), 1),
            on_dead=s.on_dead,
            on_complete=self._complete,
            on_finding=self._report,
            on_probe=self._ask_to_probe,
            may_send=self._may_send,
            has_siblings=len(self.settings.destinations) > 1,
            clock=monotonic,
            on_ready=partial(self._wake_workers, destination.name),
            rate_limit=RateLimit(destination.name, limit, on_claim=self._claim) if limit is not None else None,
            expires_in_s=s.expires_in,
        )

    # Lanes, dispatcher and owner know each other only through these.

    def _wake_workers(self, name: str, count: int) -> None:
        if name in self._pools:
            self._pools[name].wake(count)

    def _complete(self, entry: Entry) -> None:
        assert self._dispatcher is not None
        self._dispatcher.complete(entry)

    def _report(self, finding: Finding) -> None:
        assert self._dispatcher is not None
        self._dispatcher.findings.append(finding)
        self._on_work()

    def _ask_to_probe(self, name: str) -> None:
        assert self._dispatcher is not None
        self._dispatcher.probes.append(name)
        self._on_work()

    def _claim(self, claim: Claim) -> None:
        assert self._dispatcher is not None
        self._dispatcher.claims.append(claim)
        self._on_work()

    def _owns(self, now: float) -> bool:
        return self._owner is not None and self._owner.may_send(now)

    def _may_send(self, now: float) -> bool:
        return self._owns(now) and self._dispatcher is not None and self._dispatcher.crash_guard.is_open

    def _on_work(self) -> None:
        if self._owner is not None:
            self._owner.wake()

    def _let_metrics_watch(self, dispatcher: Dispatcher, owner: OwningThread) -> None:
        self.metrics.watch(window=lambda: dispatcher.held_count, owns=lambda: len(owner.shards))
        for lane in dispatcher.lanes.values():
            self.metrics.destination(lane.name).watch(
                in_flight=partial(_count_under_way, lane), healthy=partial(_is_healthy, lane)
            )

    def _on_dismissal(self, reason: Unusable) -> None:
        log.warning("relay_dismissed", relay=self.id, reason=str(reason))
        self._error = reason
        self.stop()

    def _on_end_of_a_part(self, error: BaseException) -> None:
        self._error = self._error or error
        self.stop()

    def _on_end(self, error: BaseException | None) -> None:
        self._error = error or self._error
        self._ended.set()

    # ----------------------------------------------------------------- ending

    async def _tick(self) -> None:
        while True:
            if self._owner is not None:
                self._owner.loop_turned()
            await asyncio.sleep(TICK_S)

    async def _wind_down(self) -> None:
        """Lanes first, so that nothing new starts; then the owner, which settles what they finish."""
        assert self._owner is not None
        assert self._dispatcher is not None
        self._dispatcher.end()
        await asyncio.gather(*(pool.finish(self.settings.grace_s) for pool in self._pools.values()))
        self._dispatcher.let_go(range(SHARD_COUNT))
        await self._ended.wait()
        await asyncio.to_thread(self._owner.close)
        await asyncio.gather(*(pool.destination.close() for pool in self._pools.values()))
        if self._housekeeping is not None:
            await asyncio.to_thread(self._housekeeping.stop)
        if self._ticker is not None:
            self._ticker.cancel()
        log.info("relay_stopped", relay=self.id)

    def _is_drained(self) -> bool:
        owner, dispatcher = self._owner, self._dispatcher
        assert owner is not None
        assert dispatcher is not None
        lanes = dispatcher.lanes.values()
        return owner.caught_up and not dispatcher.is_settling and all(lane.is_at_rest for lane in lanes)

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _count_under_way(lane: Lane) -> int:
    return len(lane.queue.under_way)


def _is_healthy(lane: Lane) -> bool:
    return lane.takes_messages
