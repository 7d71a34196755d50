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
from relay.destinations.rabbitmq.channel import Line

RECONNECT = Policy(backoff_s=0.2, backoff_max_s=15.0)
PATIENCE_S = 2.0  # how long a publish waits for an attempt under way
SOUND_S = 5.0  # a connection that lasted this long is replaced at once

log = structlog.get_logger("relay")


class NoLine(Exception):
    """There is no connection to the broker now; the text says why."""


class Keeper:
    """Opens a connection, and another one after it is lost, until it is closed.

    Args:
        name: The destination's name, for the log.
        open_line: Makes one attempt.
    """

    def __init__(self, name: str, open_line: Callable[[], Awaitable[Line]]) -> None:
        self._name = name
        self._open_line = open_line
        self._line: Line | None = None
        self._reason = "not connected yet"
        self._attempt = asyncio.Event()  # set when an attempt has ended
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=f"{self._name}-connection")

    async def line(self) -> Line:
        """Return the connection.

        Raises:
            NoLine: There is none, and the attempt under way does not open one soon.
        """
        if self._line is not None and self._line.is_open:
            return self._line
        self._attempt.clear()
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._attempt.wait()
        if self._line is None or not self._line.is_open:
            raise NoLine(self._reason)
        return self._line

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._line is not None:
            await self._line.close()

    async def _keep(self) -> None:
        failures = 0
        while True:
            line = await self._try(failures)
            if line is None:
                failures += 1
            else:
                opened_at = monotonic()
                await self._until_lost(line)
                failures = 0 if monotonic() - opened_at > SOUND_S else failures + 1
            if failures:
                await self._pause(failures)

    async def _try(self, failures: int) -> Line | None:
        self._wanted.clear()
        line = None
        try:
            line = self._line = await self._open_line()
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
        return line

    def _failed(self, error: BaseException, failures: int) -> None:
        reason = explained(error)
        if not failures or fingerprint(reason) != fingerprint(self._reason):
            log.warning("broker_unreachable", destination=self._name, reason=reason)
        self._reason = reason

    async def _until_lost(self, line: Line) -> None:
        loss = await asyncio.shield(line.lost)
        self._reason = str(loss)
        log.warning("broker_connection_lost", destination=self._name, reason=self._reason)
        await line.close()

    async def _pause(self, failures: int) -> None:
        """Wait before the next attempt, or until a publish needs the connection."""
        ceiling_s = RECONNECT.ceiling_s(failures)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(half_jittered(ceiling_s, random.random())):  # noqa: S311
                await self._wanted.wait()


def _is_told_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
