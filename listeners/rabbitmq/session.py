"""One session of consuming: from an opened connection to its end.

A message stays unacknowledged until its work is committed or its dead letter is confirmed. A failed message waits here
for its next attempt and keeps its place in the prefetch. When the session ends, the broker delivers the unacknowledged
messages again, and the inbox makes the duplicates harmless.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPChannelError

from listeners.rabbitmq.dead import DeadLetters
from listeners.rabbitmq.reading import Incoming, Refused, is_large, understand
from listeners.rabbitmq.work import Work
from outbox import Message
from relay.decide.backoff import Policy, half_jittered
from relay.decide.outcome import Outcome
from relay.destinations.rabbitmq.amqp import TROUBLE, bind, ensure_exchange, ensure_queue, explained
from relay.destinations.rabbitmq.amqp.topology import QueueType
from relay.platform.guide import COMPLETED

CLOSE_TIMEOUT_S = 2.0

log = structlog.get_logger("consumer")


@dataclass(frozen=True)
class Source:
    """The queue and its exchange.

    Args:
        queue: The queue's name, which is also the routing key of its binding.
        exchange: The exchange that the queue is bound to.
        queue_type: The type of queues that have to be created.
    """

    queue: str = COMPLETED
    exchange: str = "extraction.events"
    queue_type: QueueType = "classic"


@dataclass(frozen=True)
class Limits:
    """The limits of a consumer.

    Args:
        prefetch: Messages held unacknowledged at most, including those that wait for another attempt.
        max_body_bytes: The longest body, in bytes. A message with a longer one becomes a dead letter, unread.
        concurrency: Messages that are processed at the same time.
        timeout_s: The deadline of one call of the listener, in seconds.
        retry: The failures after which a message becomes a dead letter, and the waits between attempts.
        grace_s: How long an orderly stop waits for messages under way, in seconds.
    """

    prefetch: int = 64
    max_body_bytes: int = 1024 * 1024
    concurrency: int = 8
    timeout_s: float = 60.0
    retry: Policy = field(default=Policy(max_attempts=5, backoff_s=1.0, backoff_max_s=60.0))
    grace_s: float = 20.0


class Session:
    """Consumes on one connection.

    Args:
        connection: The connection, which the session closes.
        source: The queue and its exchange.
        work: Processes each message.
        limits: The limits of concurrency, size and time.

    Attributes:
        ended: Done when no more messages can come; its result is the event to log and the reason.
    """

    def __init__(self, connection: AbstractConnection, source: Source, work: Work, limits: Limits) -> None:
        self._connection = connection
        self._source = source
        self._work = work
        self._limits = limits
        self._dead = DeadLetters(connection, source.queue, source.queue_type)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._stop_consuming: Callable[[], Any] | None = None
        self.ended: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Create and bind the queue, and begin to consume.

        Raises:
            AMQPError, OSError, TimeoutError, RuntimeError: The broker does not allow it, or cannot be reached now.
        """
        await self._prepare()
        channel = self._connection.channel(publisher_confirms=False)
        await channel.initialize()
        await channel.set_qos(prefetch_count=self._limits.prefetch)
        underlay = await channel.get_underlay_channel()
        underlay.closing.add_done_callback(self._on_closed)
        underlay.on_consumer_cancel_callbacks.add(self._on_cancelled)
        queue = await channel.get_queue(self._source.queue, ensure=False)
        tag = await queue.consume(self._on_message)
        self._stop_consuming = lambda: queue.cancel(tag, timeout=CLOSE_TIMEOUT_S)

    async def stop(self, grace_s: float) -> None:
        """Accept no more messages, wait for those under way, and give the others back to the broker."""
        self._stopping.set()
        if self._stop_consuming is not None and not self.ended.done():
            try:
                await self._stop_consuming()
            except TROUBLE as error:
                log.debug("consumer_was_gone", reason=explained(error))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        await self.close()

    async def close(self) -> None:
        """Drop everything; the broker still has every unacknowledged message."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()
        except TROUBLE as error:
            log.debug("connection_was_gone", reason=explained(error))

    # -------------------------------------------------------------- beginning

    async def _prepare(self) -> None:
        """Create what is missing. The exchange is not durable, as the guide's publisher asserts it."""
        source = self._source
        try:
            if await ensure_exchange(self._connection, source.exchange, durable=False):
                log.info("exchange_created", exchange=source.exchange, durable=False)
            if await ensure_queue(self._connection, source.queue, source.queue_type):
                log.info("queue_created", queue=source.queue)
            await bind(self._connection, source.queue, source.exchange, source.queue)
        except AMQPChannelError as error:
            log.warning("topology_not_permitted", queue=source.queue, reason=explained(error))

    # ----------------------------------------------------------- what happens

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if closing.cancelled() else closing.exception()
        if not self.ended.done():
            is_channels = isinstance(error, AMQPChannelError)
            self.ended.set_result(("channel_closed" if is_channels else "broker_connection_lost", explained(error)))

    async def _on_cancelled(self, _: object) -> None:
        """Handle the end of our consumer by the broker, for example after the queue was deleted."""
        task = asyncio.create_task(self._look_for_queue())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_for_queue(self) -> None:
        try:
            async with self._connection.channel(publisher_confirms=False) as channel:
                await channel.declare_queue(self._source.queue, passive=True)
            event = "consumer_cancelled", "the queue still exists"
        except AMQPChannelError as error:
            event = "queue_deleted", explained(error)
        except TROUBLE as error:
            event = "consumer_cancelled", explained(error)
        if not self.ended.done():
            self.ended.set_result(event)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        # A task of our own: aiormq cancels its own tasks together with the channel, at any point of their work.
        task = asyncio.create_task(self._handle(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ----------------------------------------------------------- one message

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            incoming, found = await self._understood(message)
            if isinstance(found, Refused):
                await self._bury(incoming, found.id, f"unreadable: {found.reason}", 0)
            else:
                await self._work_on(incoming, found)
        except TROUBLE as error:
            log.info("not_acknowledged", message_id=message.message_id, reason=explained(error))
        except Exception:
            log.exception("consumer_broke", message_id=message.message_id)

    async def _understood(self, message: AbstractIncomingMessage) -> tuple[Incoming, Message | Refused]:
        """Parse a message. A large one is parsed in a thread, so others are not held up."""
        limit = self._limits.max_body_bytes
        return await asyncio.to_thread(understand, message, limit) if is_large(message) else understand(message, limit)

    async def _work_on(self, incoming: Incoming, message: Message) -> None:
        """Try until the message is taken, refused, or has failed too often."""
        charged = waits = 0
        while not self._stopping.is_set():
            outcome = await self._attempt(message)
            if outcome is None:
                return
            charged += outcome.kind == "failed"
            if outcome.kind == "taken":
                await incoming.ack()
                return
            if outcome.kind == "refused" or charged >= self._limits.retry.max_attempts:
                await self._bury(incoming, message.id, _epitaph(outcome, charged), charged or 1)
                return
            waits += 1
            message.attempt = charged + 1
            await self._wait(waits, message_id=message.id, attempt=charged, reason=outcome.reason)

    async def _attempt(self, message: Message) -> Outcome | None:
        async with self._work.room:
            return None if self._stopping.is_set() else await self._work.attempt(message)

    async def _bury(self, incoming: Incoming, message_id: str, reason: str, attempts: int) -> None:
        """Publish the dead letter until it is confirmed; then acknowledge the message."""
        waits = 0
        while not self._stopping.is_set():
            try:
                await self._dead.publish(incoming, message_id, reason, attempts)
            except TROUBLE as error:
                waits += 1
                await self._wait(waits, message_id=message_id, dead_letter=reason, reason=explained(error))
            else:
                log.warning("dead_letter", message_id=message_id, queue=self._dead.queue, reason=reason)
                await incoming.ack()
                return

    async def _wait(self, waits: int, **what: object) -> None:
        delay_s = half_jittered(self._limits.retry.ceiling_s(waits), random.random())  # noqa: S311
        log.warning("will_try_again", **what, delay_s=round(delay_s, 3))
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return


def _epitaph(outcome: Outcome, attempts: int) -> str:
    return f"rejected: {outcome.reason}" if outcome.kind == "refused" else f"{outcome.reason} ({attempts} attempts)"
