"""Keep one connection open: a visible loop with backoff.

A publish while there is no connection triggers the next attempt at once, waits a short time for its end, and gets the
reason if there is none: nothing hangs while the broker is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from relay.decide.backoff import Policy, half_jittered
from relay.decide.outcome import fingerprint
from relay.destinations.rabbitmq.amqp import TROUBLE, explained
from relay.destinations.rabbitmq.channel import PublishingChannel

RECONNECT = Policy(backoff_s=0.2, backoff_max_s=15.0)
PATIENCE_S = 2.0  # how long a publish waits for an attempt under way
SOUND_S = 5.0  # a connection that lasted this long is replaced at once

log = structlog.get_logger("relay")


class NotConnected(Exception):
    """There is no connection to the broker now; the text says why."""


class Reconnector:
    """Opens a connection, and another one after it is lost, until it is closed.

    Args:
        name: The destination's name, for the log.
        open_channel: Makes one attempt.
    """

    def __init__(self, name: str, open_channel: Callable[[], Awaitable[PublishingChannel]]) -> None:
        self._name = name
        self._open_channel = open_channel
        self._channel: PublishingChannel | None = None
        self._reason = "not connected yet"
        self._attempt = asyncio.Event()  # set when an attempt has ended
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=f"{self._name}-connection")

    async def channel(self) -> PublishingChannel:
        """Return the connection.

        Raises:
            NotConnected: There is none, and the attempt under way does not open one soon.
        """
        if self._channel is not None and self._channel.is_open:
            return self._channel
        self._attempt.clear()
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._attempt.wait()
        if self._channel is None or not self._channel.is_open:
            raise NotConnected(self._reason)
        return self._channel

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    async def _keep(self) -> None:
        failures = 0
        while True:
            channel = await self._try(failures)
            if channel is None:
                failures += 1
            else:
                opened_at = monotonic()
                await self._until_lost(channel)
                failures = 0 if monotonic() - opened_at > SOUND_S else failures + 1
            if failures:
                await self._pause(failures)

    async def _try(self, failures: int) -> PublishingChannel | None:
        self._wanted.clear()
        channel = None
        try:
            channel = self._channel = await self._open_channel()
        except TROUBLE as error:
            self._failed(error, failures)
        except asyncio.CancelledError as error:
            if _is_told_to_end():
                raise
            self._failed(error, failures)  # aiormq cancels its own futures when a broker goes silent
        except Exception as error:
            log.exception("broker_connection_broke", destination=self._name)
            self._failed(error, failures)
        else:
            log.info("broker_connected", destination=self._name)
        self._attempt.set()
        return channel

    def _failed(self, error: BaseException, failures: int) -> None:
        reason = explained(error)
        if not failures or fingerprint(reason) != fingerprint(self._reason):
            log.warning("broker_unreachable", destination=self._name, reason=reason)
        self._reason = reason

    async def _until_lost(self, channel: PublishingChannel) -> None:
        loss = await asyncio.shield(channel.lost)
        self._reason = str(loss)
        log.warning("broker_connection_lost", destination=self._name, reason=self._reason)
        await channel.close()

    async def _pause(self, failures: int) -> None:
        """Wait before the next attempt, or until a publish needs the connection."""
        ceiling_s = RECONNECT.ceiling_s(failures)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(half_jittered(ceiling_s, random.random())):  # noqa: S311
                await self._wanted.wait()


def _is_told_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
