"""Dead letters: a second queue for messages that are not tried again, with the reason and their origin.

They do not use `x-dead-letter-exchange`. That is an argument of the queue, so the broker would refuse a client that
declares the plain durable queue of the integration guide. And a broker that moves a dead letter by itself does not wait
for a confirm.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import DeliveryError
from pamqp.commands import Basic

from listeners.rabbitmq.properties import LONGEST, Properties, decode
from listeners.rabbitmq.reading import Incoming
from relay.destinations.rabbitmq.amqp import ensure_queue
from relay.destinations.rabbitmq.amqp.topology import QueueType

SUFFIX = ".dead"
REASON = "x-outbox-reason"
ATTEMPTS = "x-outbox-attempts"
DIED_AT = "x-outbox-died-at"
DROPPED = "x-outbox-dropped"
OCTETS = "x-outbox-properties"
ORIGIN = ("x-outbox-queue", "x-outbox-exchange", "x-outbox-routing-key")
OURS = frozenset((REASON, ATTEMPTS, DIED_AT, DROPPED, OCTETS, *ORIGIN))
CONFIRM_S = 10.0
SLOWEST_BYTES_PER_S = 1_000_000

# Properties that do not affect where a message goes, how long it stays, or who may send it.
KEPT = ("content_type", "content_encoding", "correlation_id", "timestamp", "message_type", "app_id")
# RabbitMQ sends a copy to each queue that these headers name, possibly the queue that the message came from.
ROUTING = frozenset(("CC", "BCC"))
PERSISTENT = 2
_FRAME_OVERHEAD = 8 + 12  # octets of a content header: the frame's own; the class, a weight and the size of the body


class DeadLetters:
    """Publishes dead letters on one connection and waits for each confirm.

    Args:
        connection: The connection to publish on.
        queue: The queue that the messages come from.
        queue_type: The type of the dead-letter queue, if it has to be created.
    """

    def __init__(self, connection: AbstractConnection, queue: str, queue_type: QueueType) -> None:
        self._connection = connection
        self._from = queue
        self.queue = queue + SUFFIX
        self._queue_type: QueueType = queue_type
        self._channel: AbstractChannel | None = None
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def publish(self, incoming: Incoming, message_id: str, reason: str, attempts: int) -> None:
        """Publish a dead letter; return when the broker has confirmed it. Only then may the original be acknowledged.

        Args:
            incoming: The original message.
            message_id: The id of the dead letter. Without one, aiormq would invent an id, and a message that is moved
                back to its queue would then be processed a second time.
            reason: Why the message is not tried again.
            attempts: How many attempts were made.

        Raises:
            AMQPError, OSError, TimeoutError, RuntimeError: The broker has not confirmed it.
        """
        reason = reason.encode(errors="replace").decode()  # the reason may contain a lone surrogate
        told = {**_origin(incoming, self._from), REASON: reason, ATTEMPTS: attempts, **_now()}
        # aiormq finds a returned message by its id: if two letters had the same id, it would take one for confirmed.
        async with self._turns.setdefault(message_id, asyncio.Lock()):
            channel = await self._open()
            try:
                await self._publish(channel, incoming, message_id, told)
            except DeliveryError:
                await ensure_queue(self._connection, self.queue, self._queue_type)
                await self._publish(channel, incoming, message_id, told)

    async def _publish(
        self, channel: AbstractChannel, incoming: Incoming, message_id: str, told: dict[str, Any]
    ) -> None:
        underlay = await channel.get_underlay_channel()
        longest = underlay.connection.connection_tune.frame_max
        await underlay.basic_publish(
            incoming.body,
            routing_key=self.queue,
            properties=letter(incoming.properties, message_id, told, longest),
            mandatory=True,
            timeout=CONFIRM_S + len(incoming.body) / SLOWEST_BYTES_PER_S,
        )

    async def _open(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            await ensure_queue(self._connection, self.queue, self._queue_type)
            channel = self._connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.initialize(timeout=CONFIRM_S)
            self._channel = channel
        return self._channel


def letter(properties: Properties, message_id: str, told: Mapping[str, Any], frame_max: int) -> Basic.Properties:
    """Return a dead letter's properties: those of its original, and our headers.

    Properties that cannot be decoded, or cannot be encoded again, are copied into a header, octet for octet.

    Args:
        properties: The original's properties.
        message_id: The id of the dead letter.
        told: Our headers.
        frame_max: The longest frame, in bytes; 0: no limit. If the original's headers do not fit beside ours, the
            letter omits them and says so in a header.
    """
    size = len(properties.octets)
    longest = min(frame_max - _FRAME_OVERHEAD if frame_max else LONGEST, LONGEST)
    dropped = f"all headers: its properties take {size:,} bytes, and there is room for {longest:,}"
    wholes: list[dict[str, Any]] = [{OCTETS: bytearray(properties.octets)}, {DROPPED: dropped}]
    kept: dict[str, Any] = {}
    if properties.problem is None:
        kept = {name: getattr(properties.values, name) for name in KEPT}
        wholes.insert(0, _headers(properties))
    made = (
        Basic.Properties(**kept, headers={**headers, **told}, delivery_mode=PERSISTENT, message_id=message_id)
        for headers in wholes
    )
    return next(each for each in made if _fits(each, longest))


def _headers(properties: Properties) -> dict[str, Any]:
    """Return the original's headers, except those of an earlier death and those that name queues for copies."""
    headers = {name: value for name, value in properties.headers.items() if name not in OURS}
    routing = sorted(headers.keys() & ROUTING)
    kept = {name: value for name, value in headers.items() if name not in ROUTING}
    return kept | ({DROPPED: f"{', '.join(routing)}: a copy would go where they say"} if routing else {})


def _fits(properties: Basic.Properties, longest: int) -> bool:
    """Return whether the properties are short enough, and encoding does not change any header."""
    try:
        octets = properties.marshal()
    except (TypeError, ValueError, ArithmeticError, struct.error):
        return False
    return len(octets) <= longest and decode(octets).headers == properties.headers


def _origin(incoming: Incoming, queue: str) -> dict[str, Any]:
    return dict(zip(ORIGIN, (queue, incoming.exchange, incoming.routing_key), strict=True))


def _now() -> dict[str, Any]:
    return {DIED_AT: datetime.now(UTC).isoformat()}
