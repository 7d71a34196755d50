"""Deliver everything that can be delivered now (a drain), then report what is left and why."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from outbox.errors import OutboxError
from relay.admin.leftover import Leftover, what_is_left
from relay.delivery.dispatcher import Dispatcher
from relay.seam import ToOwner
from relay.settings import Settings

SETTLED_WITHIN_S = 1.0  # how long a drain waits for its verdicts before it looks for what is left
LOOK_S = 0.005  # between two checks that everything is done


@dataclass(frozen=True, slots=True)
class Drained:
    """The result of a drain.

    Args:
        delivered: Messages that every destination took.
        partly: Messages that only some of their destinations took.
        reason: Why the drain ended early, or why it is unknown what is left; ``None`` if neither applies.
        standing_by: Whether the drain ended early because another relay owns the messages now.
        left: The due deliveries that were not made, and why; empty if all were made, or if there is a reason.
    """

    delivered: int
    partly: int = 0
    reason: str | None = None
    standing_by: bool = False
    left: Sequence[Leftover] = ()


class Outage(Protocol):
    """The cause that keeps the relay from its database."""

    @property
    def reason(self) -> str | None: ...

    @property
    def failures(self) -> int: ...

    @property
    def is_standing_by(self) -> bool: ...


class Owner(Protocol):
    """The owning thread, as a drain needs it."""

    @property
    def caught_up(self) -> bool: ...

    @property
    def outage(self) -> Outage: ...


class Drain:
    """One drain of a running relay.

    Args:
        owner: The owning thread.
        dispatcher: The unsettled entries.
        heard: Wakes the owning thread.
        settings: The database, and how often the relay beats.
        clock: The time, in seconds.
    """

    def __init__(
        self, owner: Owner, dispatcher: Dispatcher, heard: ToOwner, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self._owner, self._dispatcher, self._heard = owner, dispatcher, heard
        self._settings, self._clock = settings, clock
        self._began_at = clock()
        self._delivered_before = dispatcher.completion.delivered_count
        self._partly_before = dispatcher.partly_delivered_count

    async def run(self, has_ended: Callable[[], bool], *, look: bool) -> Drained:
        """Deliver everything that can be delivered now.

        Args:
            has_ended: Whether the relay has ended.
            look: Whether to look for what is left, over a separate connection.
        """
        self._dispatcher.crash_guard.hurry()
        reason = await self._wait(has_ended)
        is_standing_by = self._owner.outage.is_standing_by
        left: Sequence[Leftover] = ()
        if look and (reason is None or is_standing_by):
            try:
                left = await self._look_at_what_is_left()
            except OutboxError as error:
                reason, is_standing_by = str(error), False
        return Drained(
            self._dispatcher.completion.delivered_count - self._delivered_before,
            self._dispatcher.partly_delivered_count - self._partly_before,
            reason,
            is_standing_by,
            left,
        )

    async def _wait(self, has_ended: Callable[[], bool]) -> str | None:
        """Wait until everything is done; return the reason if the database is away for too long.

        An attempt to open a session may still succeed when the time is over, so this waits until it has ended.
        """
        outage, patience_s = self._owner.outage, 2 * self._settings.beat_s + 1
        ends_at, failures = math.inf, 0
        while not self._is_done and not has_ended():
            reason, now = outage.reason, self._clock()
            ends_at = min(ends_at, now + patience_s) if reason else math.inf
            if now <= ends_at:
                failures = outage.failures
            elif outage.failures > failures:
                return reason
            await asyncio.sleep(LOOK_S)
        return None

    @property
    def _is_done(self) -> bool:
        lanes = self._dispatcher.lanes.values()
        is_settled = not self._dispatcher.completion.is_settling
        return self._owner.caught_up and is_settled and all(lane.is_at_rest for lane in lanes)

    async def _look_at_what_is_left(self) -> Sequence[Leftover]:
        """Look for what is left, after the table has the verdicts of all destinations."""
        dispatcher = self._dispatcher
        failing = {
            lane.name: reason
            for lane in dispatcher.lanes.values()
            if (reason := lane.breaker.suspects.reason) is not None
        }
        for _ in range(2):  # the first call marks partly decided entries, the second one settles them
            dispatcher.split()
        self._heard.wake()
        deadline = self._clock() + SETTLED_WITHIN_S
        while dispatcher.completion.is_settling and self._clock() < deadline:  # noqa: ASYNC110 (another thread settles)
            await asyncio.sleep(LOOK_S)
        return await asyncio.to_thread(what_is_left, self._settings, self._began_at, failing)
