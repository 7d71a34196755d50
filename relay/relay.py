"""The relay: its parts put together, and its life from start to stop."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from dataclasses import dataclass
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Self

import structlog

from outbox.errors import Unusable
from relay.admin.housekeeping import Housekeeping
from relay.admin.messages.redaction import Redaction
from relay.admin.timeline.sampling import Sampler
from relay.decide.backoff import Policy
from relay.delivery.assembly import LaneSettings, LoopSide, assemble
from relay.delivery.draining import Drain, Drained
from relay.delivery.lane import Lane
from relay.destinations.contract import Destination, InProcess
from relay.destinations.registry import build
from relay.observe import tracing
from relay.observe.metrics import Metrics
from relay.observe.supervision import Supervisor
from relay.owner.startup import register_configured
from relay.owner.thread import OwningThread
from relay.seam import Bell, Lease, OwnerEvents, OwnersSeam, ToOwner, posted, posting_to
from relay.settings import Settings, load
from relay.store import open_store

__all__ = ["Drained", "Health", "Relay"]

log = structlog.get_logger("relay")

TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a relay.

    Args:
        database: Whether it has a session.
        schema: Whether this release can use the schema.
        loop_age_s: Seconds since the event loop last turned.
        owns: How many shards it owns.
        detail: What is wrong; ``None`` if all is well.
    """

    database: bool
    schema: bool
    loop_age_s: float
    owns: int
    detail: str


@dataclass(frozen=True, slots=True)
class Running:
    """The parts of a relay that has been started.

    Args:
        owner: The owning thread.
        loop_side: The parts on the event loop.
        heard: The messages of the event loop to the owning thread.
        housekeeping: The periodic work.
        ticker: Tells the owning thread that the event loop is not blocked.
    """

    owner: OwningThread
    loop_side: LoopSide
    heard: ToOwner
    housekeeping: Housekeeping
    ticker: asyncio.Task[None]


class Relay:
    """Delivers the messages of an outbox.

    Args:
        settings: The settings; by default those of the environment and ``outbox.toml``.
        apply: Register the configured destinations if others are registered.
        wait_for_database: Whether to wait without a limit for a database that cannot be reached at the start.

    Raises:
        Unusable: At the start: the settings, the schema or the registered destinations do not allow it to work.

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
        self._supervisor = Supervisor(self._on_end_of_a_part)
        self._running: Running | None = None
        self._winding_down: asyncio.Task[None] | None = None

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
        """Check the settings, register the destinations, and begin."""
        settings = self.settings
        settings.require_database_file()
        tracing.configure(children=settings.trace_children)
        destinations = [build(name, s, settings.database) for name, s in settings.destinations.items()]
        generation = await register_configured(settings, apply=self._apply, wait_for_database=self._wait_for_database)
        running = self._running = self._put_together(destinations, generation)
        self._let_metrics_watch(running)
        await running.loop_side.start()
        running.housekeeping.start()
        running.owner.start()
        log.info("relay_started", relay=self.id, destinations=sorted(settings.destinations))

    def stop(self) -> None:
        """Begin the orderly end: start no attempt, settle those under way within ``grace_s``, hand the shards back."""
        if self._running is None:
            self._ended.set()
        elif self._winding_down is None:
            log.info("relay_stopping", relay=self.id, grace_s=self.settings.grace_s)
            self._running.owner.stop(monotonic() + self.settings.grace_s)
            self._winding_down = asyncio.create_task(self._wind_down(self._running), name="outbox-winding-down")

    async def wait(self) -> None:
        """Wait until the relay has ended, by `stop` or by itself.

        Raises:
            Unusable: It ended by itself, because it cannot work here any more.
        """
        await self._ended.wait()
        if self._winding_down is not None:
            await self._winding_down
        self._raise_error()

    async def drain(self, *, look: bool = True) -> Drained:
        """Deliver everything that can be delivered now.

        Deliveries that wait for a backoff, a due date, a paused destination or another relay's shards are left. If the
        database is lost meanwhile, the relay waits for it as long as at the start.

        Args:
            look: Whether to look for what is left, over a separate connection.
        """
        running = self._running
        assert running is not None
        drain = Drain(running.owner, running.loop_side.dispatcher, running.heard, self.settings, monotonic)
        return await drain.run(self._has_ended, look=look)

    def health(self) -> Health:
        """Return the health of the relay."""
        if self._running is None:
            return Health(False, False, 0.0, 0, "starting")
        owner = self._running.owner
        reason = owner.outage.reason
        return Health(reason is None, reason is None, owner.loop_age_s, len(owner.shards), reason or "")

    # ----------------------------------------------------------- composition

    def _put_together(self, destinations: list[Destination], generation: int) -> Running:
        settings, bell, lease = self.settings, Bell(), Lease(self.settings.lease_s)
        heard = ToOwner(bell.ring, window=settings.window)
        loop_side = assemble(
            [(each, self._lane_settings(each)) for each in destinations],
            owner=heard,
            lease=lease,
            window=settings.window,
            metrics=self.metrics,
            supervisor=self._supervisor,
            clock=monotonic,
            values_of=Redaction(settings.redact).values_of if settings.redact else None,
        )
        events = OwnerEvents(dismissed=self._on_dismissal, owner_ended=self._on_end)
        post = posting_to(asyncio.get_running_loop(), self._supervisor)
        owner = OwningThread(
            open_store(settings),
            OwnersSeam(posted(loop_side.dispatcher, post), posted(events, post), heard, loop_side.dispatcher, lease),
            bell,
            settings,
            relay_id=self.id,
            generation=generation,
            metrics=self.metrics,
            in_process=[each for each in destinations if isinstance(each, InProcess)],
            clock=monotonic,
        )
        ticker = self._supervisor.start(_tick(owner), "ticker")
        return Running(owner, loop_side, heard, self._make_housekeeping(), ticker)

    def _lane_settings(self, destination: Destination) -> LaneSettings:
        count, s = len(self.settings.destinations), self.settings.destinations[destination.name]
        return LaneSettings(
            destination.name,
            policy=Policy(s.max_attempts, s.give_up_after_s, s.backoff_s, s.backoff_max_s),
            concurrency=destination.concurrency,
            limit=max(self.settings.window // count, 1),
            on_dead=s.on_dead,
            has_siblings=count > 1,
            expires_in_s=s.expires_in,
            rate=s.rate_limit,
            events=s.events,
            system=tracing.system_of(s.kind),
        )

    def _make_housekeeping(self) -> Housekeeping:
        return Housekeeping(
            self.settings,
            relay_id=self.id,
            backlog=self.metrics.backlog,
            sampler=Sampler(self.metrics, self.id),
        )

    def _let_metrics_watch(self, running: Running) -> None:
        dispatcher, owner = running.loop_side.dispatcher, running.owner
        self.metrics.watch(window=lambda: dispatcher.held_count, owns=lambda: len(owner.shards))
        for lane in dispatcher.lanes.values():
            self.metrics.destination(lane.name).watch(
                in_flight=partial(_count_under_way, lane), healthy=partial(_is_healthy, lane)
            )

    # -------------------------------------------------- what ends the relay

    def _on_dismissal(self, reason: Unusable) -> None:
        log.warning("relay_dismissed", relay=self.id, reason=str(reason))
        self._error = reason
        self.stop()

    def _on_end(self, error: BaseException | None) -> None:
        self._error = error or self._error
        self._ended.set()

    def _on_end_of_a_part(self, error: BaseException) -> None:
        self._error = self._error or error
        self.stop()

    async def _wind_down(self, running: Running) -> None:
        """End the lanes first, so that nothing new starts; then the owner, which settles what they finish."""
        await running.loop_side.finish(self.settings.grace_s)
        await self._ended.wait()
        await asyncio.to_thread(running.owner.close)
        await running.loop_side.close()
        await asyncio.to_thread(running.housekeeping.stop)
        running.ticker.cancel()
        log.info("relay_stopped", relay=self.id)

    def _has_ended(self) -> bool:
        if self._ended.is_set():
            self._raise_error()
        return self._ended.is_set()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


async def _tick(owner: OwningThread) -> None:
    while True:
        owner.loop_turned()
        await asyncio.sleep(TICK_S)


def _count_under_way(lane: Lane) -> int:
    return len(lane.queue.under_way)


def _is_healthy(lane: Lane) -> bool:
    return lane.takes_messages
