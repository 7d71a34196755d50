"""Consume until told to stop: one session after another, with backoff between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import structlog

from listeners.rabbitmq.frames import TolerantConnection
from listeners.rabbitmq.session import Limits, Session, Source
from listeners.rabbitmq.work import Work
from relay.databases.database import Database
from relay.decide.backoff import Policy, half_jittered
from relay.decide.outcome import fingerprint
from relay.destinations.listener.destination import ListenerDestination
from relay.destinations.rabbitmq.amqp import TROUBLE, Broker, explained
from relay.platform.guide import BASELINE_LISTENER
from relay.platform.waiting import is_set_within
from relay.platform.watchdog import name_of

RECONNECT = Policy(backoff_s=0.2, backoff_max_s=15.0)
SOUND_S = 5.0
OPEN_TIMEOUT_S = 20.0

log = structlog.get_logger("consumer")


@dataclass(frozen=True)
class Health:
    """The health of a consumer.

    Args:
        broker: Whether it is connected and receives messages.
        detail: Why not.
        loop_age_s: Always 0: the event loop itself answers.
    """

    broker: bool
    detail: str = ""
    loop_age_s: float = 0.0


class Consumer:
    """Calls a listener for each message of a queue.

    Args:
        broker: The broker that holds the queue.
        database: The database of the listener's session.
        listener: A listener as for a relay's destination: a callable, or ``"module:callable"``.
        source: The queue and its exchange.
        limits: The limits of concurrency, size and time.

    Raises:
        SettingsError: The listener cannot be used.

    Example:
        >>> consumer = Consumer(Broker("amqp://localhost/"), Database.parse("postgresql://localhost/app"))
        >>> await consumer.run()
    """

    def __init__(
        self,
        broker: Broker,
        database: Database,
        *,
        listener: str | Callable[..., Any] = BASELINE_LISTENER,
        source: Source | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._broker = broker
        self._source = source or Source()
        self._limits = limits = limits or Limits()
        runner = ListenerDestination(
            _name(listener), listener, database=database, concurrency=limits.concurrency, system="rabbitmq"
        )
        self._work = Work(runner, concurrency=limits.concurrency, timeout_s=limits.timeout_s)
        self._stopping = asyncio.Event()
        self._reason = "not connected yet"
        self._is_consuming = False

    def health(self) -> Health:
        """Return the health: ready while it consumes."""
        return Health(self._is_consuming, "" if self._is_consuming else self._reason)

    def stop(self) -> None:
        """Begin an orderly stop; `run` returns when it is complete."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until `stop` is called."""
        failures = 0
        try:
            while not self._stopping.is_set():
                began_at = monotonic()
                await self._consume(failures)
                failures = 0 if monotonic() - began_at > SOUND_S else failures + 1
                if failures:
                    ceiling_s = RECONNECT.ceiling_s(failures)
                    await is_set_within(self._stopping, half_jittered(ceiling_s, random.random()))  # noqa: S311
        finally:
            await self._work.close()
        log.info("consumer_stopped", queue=self._source.queue)

    async def _consume(self, failures: int) -> None:
        """Run one session; return when it has ended, or could not begin."""
        try:
            session = await self._open()
        except TROUBLE as error:
            reason = explained(error)
            if not failures or fingerprint(reason) != fingerprint(self._reason):
                log.warning("broker_unreachable", broker=str(self._broker), reason=reason)
            self._reason = reason
            return
        self._is_consuming = True
        log.info("consuming", broker=str(self._broker), queue=self._source.queue, prefetch=self._limits.prefetch)
        stopping = asyncio.create_task(self._stopping.wait())
        either: list[asyncio.Future[Any]] = [stopping, session.ended]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._is_consuming = False
            stopping.cancel()
            await self._end(session)

    async def _open(self) -> Session:
        connection = await self._broker.connect(connection_class=TolerantConnection)
        session = Session(connection, self._source, self._work, self._limits)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await session.start()
        except BaseException:
            await session.close()
            raise
        return session

    async def _end(self, session: Session) -> None:
        if self._stopping.is_set():
            await session.stop(self._limits.grace_s)
            return
        if session.ended.done():
            self._reason = session.ended.result()
            log.warning("consuming_ended", queue=self._source.queue, reason=self._reason)
        await session.close()


def _name(listener: str | Callable[..., Any]) -> str:
    """Return the listener's name in the inbox: each listener processes a message once."""
    if listener == BASELINE_LISTENER:
        return "baseline"
    return listener if isinstance(listener, str) else name_of(listener)
