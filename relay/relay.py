"""The relay: how its parts are put together, and its life from start to stop."""

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
from relay.delivery.assembly import LoopSide, assemble
from relay.delivery.draining import Drain, Drained
from relay.delivery.lane import Lane
from relay.destinations.contract import Destination, InProcess
from relay.destinations.registry import build
from relay.observe import tracing
from relay.observe.metrics import Metrics
from relay.owner.startup import open_store, register_configured
from relay.owner.thread import OwningThread
from relay.seam import Bell, Lease, OwnerEvents, OwnersSeam, ToOwner, posted, posting_to
from relay.seam.supervision import Supervisor
from relay.settings import Settings, load

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
        Unusable: At the start, if the settings, the schema or the registered destinations do not allow it to work.

    Example:
        >>> async with Relay(Settings(database_url="postgresql://localhost/app", destinations={...})) as relay:
        ...     await relay.wait()
    """

    def __init__(
        self, settings: Settings | None = None, *, apply: bool = False, wait_for_database: bool = True
    ) -> None:
        self.settings = settings if settings is not None else load()
        self.id = f"{ascii(socket.gethostname())[1:-1]}-{os.getpid()}-{random.randrange(16**4):04x}"  # noqa: S311
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
            Unusable: The relay ended by itself, because it cannot work here any more.
        """
        await self._ended.wait()
        if self._winding_down is not None:
            await self._winding_down
        self._raise_error()

    async def drain(self, *, look: bool = True) -> Drained:
        """Deliver everything that can be delivered now.

        Deliveries that wait for a backoff, a due date or a paused destination, or are in another relay's shards, are
        left. If the database is lost in the meantime, the relay waits for it as long as at the start.

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
            destinations,
            settings.destinations,
            owner=heard,
            lease=lease,
            window=settings.window,
            metrics=self.metrics,
            supervisor=self._supervisor,
            clock=monotonic,
            values_of=Redaction(settings.redact).values_of if settings.redact else None,
        )
        events = OwnerEvents(dismissed=self._on_dismissal, owner_ended=self._on_end)
        post, dispatcher = posting_to(asyncio.get_running_loop(), self._supervisor), loop_side.dispatcher
        crashes = posted(dispatcher.crash_guard, post)
        owner = OwningThread(
            open_store(settings),
            OwnersSeam(posted(dispatcher, post), crashes, posted(events, post), heard, dispatcher, lease),
            bell,
            settings,
            relay_id=self.id,
            generation=generation,
            metrics=self.metrics,
            in_process=[each for each in destinations if isinstance(each, InProcess)],
            clock=monotonic,
        )
        ticker = self._supervisor.start(_tick(owner), "ticker")
        housekeeping = Housekeeping(self.settings, relay_id=self.id, metrics=self.metrics)
        return Running(owner, loop_side, heard, housekeeping, ticker)

    def _let_metrics_watch(self, running: Running) -> None:
        dispatcher, owner = running.loop_side.dispatcher, running.owner
        self.metrics.watch(window=lambda: dispatcher.held_count, owns=lambda: len(owner.shards))
        for lane in dispatcher.lanes.values():
            self.metrics.watch_destination(
                lane.name, in_flight=partial(_count_under_way, lane), healthy=partial(_is_healthy, lane)
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
