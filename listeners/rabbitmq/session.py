"""One stretch of consuming: from a connection that was opened to whatever ended it.

A message stays unacknowledged, and so the broker's, until its work is committed or its dead letter confirmed; a failure
is waited out here, in its place of the prefetch, and tried again. Whatever ends the session, the broker hands out again
what was not acknowledged, and the inbox makes sure that this changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
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
    """What is consumed.

    Args:
        queue: The queue, which is also the routing key that it is bound with.
        exchange: What it is bound to.
        queue_type: Of queues that have to be made.
    """

    queue: str = COMPLETED
    exchange: str = "extraction.events"
    queue_type: QueueType = "classic"


class Session:
    """Consumes on one connection.

    Args:
        connection: The connection, which the session closes.
        source: What is consumed.
        work: What is done with it.
        retry: How patient it is.
        prefetch: Messages held unacknowledged at most.
        max_body_bytes: The longest body that is read.

    Attributes:
        ended: Done when nothing comes any more; says the event to log, and why.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        source: Source,
        work: Work,
        *,
        retry: Policy,
        prefetch: int,
        max_body_bytes: int,
    ) -> None:
        self._connection = connection
        self._source = source
        self._work = work
        self._retry = retry
        self._prefetch = prefetch
        self._max_body_bytes = max_body_bytes
        self._dead = DeadLetters(connection, source.queue, source.queue_type)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._stop_consuming: Callable[[], Any] | None = None
        self.ended: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Have the queue there, bound, and begin.

        Raises:
            AMQPError, OSError, TimeoutError, RuntimeError: It cannot be done now.
        """
        await self._prepare()
        channel = self._connection.channel(publisher_confirms=False)
        await channel.initialize()
        await channel.set_qos(prefetch_count=self._prefetch)
        underlay = await channel.get_underlay_channel()
        underlay.closing.add_done_callback(self._on_closed)
        underlay.on_consumer_cancel_callbacks.add(self._on_cancelled)
        queue = await channel.get_queue(self._source.queue, ensure=False)
        tag = await queue.consume(self._on_message)
        self._stop_consuming = lambda: queue.cancel(tag, timeout=CLOSE_TIMEOUT_S)

    async def stop(self, grace_s: float) -> None:
        """Take nothing more, let what is being worked on end, and give the rest back."""
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
        """Drop everything; the broker has it all."""
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
        """The exchange, if it has to be made, as the guide's publisher makes it, which refuses any other."""
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
        """The broker ended our consumer: because the queue was deleted, or for reasons of its own."""
        task = asyncio.create_task(self._look_for_queue())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_for_queue(self) -> None:
        try:
            async with self._connection.channel(publisher_confirms=False) as channel:
                await channel.declare_queue(self._source.queue, passive=True)
            event = "consumer_cancelled", "the queue is still there"
        except AMQPChannelError as error:
            event = "queue_deleted", explained(error)
        except TROUBLE as error:
            event = "consumer_cancelled", explained(error)
        if not self.ended.done():
            self.ended.set_result(event)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        # A task of our own: aiormq cancels its tasks with the channel, whatever they are in the middle of.
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
        """What it says. A large one is read in a thread: others go on meanwhile."""
        if is_large(message):
            return await asyncio.to_thread(understand, message, self._max_body_bytes)
        return understand(message, self._max_body_bytes)

    async def _work_on(self, incoming: Incoming, message: Message) -> None:
        """Try until it is taken, refused, or has failed too often."""
        charged = waits = 0
        while not self._stopping.is_set():
            outcome = await self._attempt(message)
            if outcome is None:
                return
            charged += outcome.kind == "failed"
            if outcome.kind == "taken":
                await incoming.ack()
                return
            if outcome.kind == "refused" or charged >= self._retry.max_attempts:
                await self._bury(incoming, message.id, _epitaph(outcome, charged), charged or 1)
                return
            waits += 1
            message.attempt = charged + 1
            await self._wait(waits, message_id=message.id, attempt=charged, reason=outcome.reason)

    async def _attempt(self, message: Message) -> Outcome | None:
        async with self._work.room:
            return None if self._stopping.is_set() else await self._work.attempt(message)

    async def _bury(self, incoming: Incoming, message_id: str, reason: str, attempts: int) -> None:
        """Publish the dead letter; acknowledge when that is confirmed; until it is, keep trying."""
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
        delay_s = half_jittered(self._retry.ceiling_s(waits), random.random())  # noqa: S311
        log.warning("will_try_again", **what, delay_s=round(delay_s, 3))
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return


def _epitaph(outcome: Outcome, attempts: int) -> str:
    return f"rejected: {outcome.reason}" if outcome.kind == "refused" else f"{outcome.reason} ({attempts} attempts)"
