"""One session of consuming: from an opened connection to its end.

A message stays unacknowledged until its work is committed or its dead letter is confirmed. A failed message waits here
for its next attempt and keeps its place in the prefetch. When the session ends, the broker delivers the unacknowledged
messages again, and the inbox makes the duplicates harmless.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelPreconditionFailed

from listeners.rabbitmq.dead import DeadLetters
from listeners.rabbitmq.reading import Incoming, Unreadable, is_large, understand
from listeners.rabbitmq.work import Work
from outbox import Message
from relay.decide.backoff import Policy, half_jittered
from relay.decide.outcome import Outcome
from relay.destinations.rabbitmq.amqp import TROUBLE, ensure_topology, explained
from relay.destinations.rabbitmq.amqp.topology import QueueType
from relay.platform.guide import COMPLETED
from relay.platform.waiting import is_set_within

CLOSE_TIMEOUT_S = 2.0
# Have the broker report each loss of the queue. Without this argument, if the queue exists again before the broker
# notices its loss, the broker resumes the consumer without a word, and RabbitMQ 3.10 then loses what it sends to it.
REPORTING = {"x-cancel-on-ha-failover": True}

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
        prefetch: The most messages that are held unacknowledged, including those that wait for another attempt.
        max_body_bytes: The longest body, in bytes. A message with a longer body becomes a dead letter without being
            read.
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
        ended: Done when no more messages can come; its result is the reason.
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
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Create and bind the queue, and begin to consume.

        Raises:
            AMQPError, OSError, TimeoutError, RuntimeError: The broker does not allow it, or cannot be reached now.
        """
        await self._prepare()
        try:
            await self._begin(REPORTING)
        except ChannelPreconditionFailed:  # quorum queues do not know the argument
            await self._begin({})

    async def stop(self, grace_s: float) -> None:
        """Accept no more messages, wait for those under way, and give the rest back to the broker."""
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
        """Drop all messages; the broker still has every unacknowledged one."""
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
        """Create what is missing. The exchange is not durable, because the guide's publisher declares it like that."""
        source = self._source
        await ensure_topology(self._connection, source.exchange, [source.queue], source.queue_type, durable=False)

    async def _begin(self, arguments: Mapping[str, Any]) -> None:
        channel = self._connection.channel(publisher_confirms=False)
        await channel.initialize()
        await channel.set_qos(prefetch_count=self._limits.prefetch)
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._on_cancelled)
        queue = await channel.get_queue(self._source.queue, ensure=False)
        tag = await queue.consume(self._on_message, arguments=dict(arguments))
        self._stop_consuming = lambda: queue.cancel(tag, timeout=CLOSE_TIMEOUT_S)
        underlay.closing.add_done_callback(self._on_closed)  # at once, if it is closed already

    # ----------------------------------------------------------- what happens

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if closing.cancelled() else closing.exception()
        self._end(explained(error))

    async def _on_cancelled(self, _: object) -> None:
        self._end("the broker has cancelled the consumer, perhaps because the queue was deleted")

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        # Runs in a task of our own: aiormq cancels its own tasks together with the channel, at any point of their work.
        task = asyncio.create_task(self._handle(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ----------------------------------------------------------- one message

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            incoming, found = await self._understood(message)
            if isinstance(found, Unreadable):
                await self._bury(incoming, found.id, f"unreadable: {found}", 0)
            else:
                await self._work_on(incoming, found)
        except TROUBLE as error:
            log.info("not_acknowledged", message_id=message.message_id, reason=explained(error))
        except Exception:
            log.exception("consumer_broke", message_id=message.message_id)

    async def _understood(self, message: AbstractIncomingMessage) -> tuple[Incoming, Message | Unreadable]:
        """Parse a message. A large message is parsed in a thread, so that other messages are not held up."""
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
        """Publish the dead letter, repeatedly until it is confirmed; then acknowledge the message."""
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
        await is_set_within(self._stopping, delay_s)


def _epitaph(outcome: Outcome, attempts: int) -> str:
    return f"rejected: {outcome.reason}" if outcome.kind == "refused" else f"{outcome.reason} ({attempts} attempts)"
