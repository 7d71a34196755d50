"""Dead letters: a queue beside the queue, with what nobody will try again, why, and where it came from.

Not by `x-dead-letter-exchange`: that is an argument of the queue, and whoever asserts the plain durable queue of the
integration guide would be refused. And a broker that moves a dead letter by itself does not wait for a confirm.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError

from relay.amqp import ensure_queue
from relay.amqp.topology import QueueType

SUFFIX = ".dead"
REASON = "x-outbox-reason"
ATTEMPTS = "x-outbox-attempts"
DIED_AT = "x-outbox-died-at"
ORIGIN = ("x-outbox-queue", "x-outbox-exchange", "x-outbox-routing-key")
CONFIRM_S = 10.0


class DeadLetters:
    """Publishes dead letters on one connection, each confirmed.

    Args:
        connection: The connection.
        queue: The queue they come from.
        queue_type: Of the queue they go to, when that has to be made.
    """

    def __init__(self, connection: AbstractConnection, queue: str, queue_type: QueueType) -> None:
        self._connection = connection
        self._from = queue
        self.queue = queue + SUFFIX
        self._queue_type: QueueType = queue_type
        self._channel: AbstractChannel | None = None

    async def publish(self, incoming: AbstractIncomingMessage, message_id: str, reason: str, attempts: int) -> None:
        """Return when the broker has it: only then may the original be acknowledged.

        Args:
            incoming: The original.
            message_id: What it is known by: aiormq would invent an id for one that has none, and whoever moves the
                letter back one day would have it done twice.
            reason: Why nobody will try again.
            attempts: How often somebody did.

        Raises:
            AMQPError, OSError, TimeoutError, RuntimeError: It has not, or nobody knows.
        """
        letter = _letter(incoming, message_id, {**_origin(incoming, self._from), REASON: reason, ATTEMPTS: attempts})
        channel = await self._open()
        try:
            await channel.default_exchange.publish(letter, self.queue, mandatory=True, timeout=CONFIRM_S)
        except DeliveryError:
            await ensure_queue(self._connection, self.queue, self._queue_type)
            await channel.default_exchange.publish(letter, self.queue, mandatory=True, timeout=CONFIRM_S)

    async def _open(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            await ensure_queue(self._connection, self.queue, self._queue_type)
            channel = self._connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.initialize(timeout=CONFIRM_S)
            self._channel = channel
        return self._channel


def _origin(incoming: AbstractIncomingMessage, queue: str) -> dict[str, Any]:
    return dict(zip(ORIGIN, (queue, incoming.exchange or "", incoming.routing_key or ""), strict=True))


def _letter(incoming: AbstractIncomingMessage, message_id: str, told: dict[str, Any]) -> aio_pika.Message:
    """As it came, persistent, with what became of it."""
    return aio_pika.Message(
        incoming.body,
        headers={**incoming.headers, **told, DIED_AT: datetime.now(UTC).isoformat()},
        content_type=incoming.content_type,
        content_encoding=incoming.content_encoding,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=message_id,
        correlation_id=incoming.correlation_id,
        timestamp=incoming.timestamp,
        type=incoming.type,
        app_id=incoming.app_id,
    )
