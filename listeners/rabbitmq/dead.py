"""Dead letters: a second queue for messages that are not tried again, with the reason and their origin.

They do not use `x-dead-letter-exchange`. It is an argument of the queue, so a client that asserts the plain durable
queue of the integration guide would be refused. And a broker that moves a dead letter by itself does not wait for a
confirm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import DeliveryError
from pamqp import commands

from listeners.rabbitmq.properties import Properties, Value, encode, entry, table, text
from listeners.rabbitmq.reading import Incoming
from relay.destinations.rabbitmq.amqp import ensure_queue
from relay.destinations.rabbitmq.amqp.topology import QueueType

SUFFIX = ".dead"
REASON = "x-outbox-reason"
ATTEMPTS = "x-outbox-attempts"
DIED_AT = "x-outbox-died-at"
DROPPED = "x-outbox-dropped"
MESSAGE_ID = "x-outbox-message-id"
ORIGIN = ("x-outbox-queue", "x-outbox-exchange", "x-outbox-routing-key")
OURS = frozenset(name.encode() for name in (REASON, ATTEMPTS, DIED_AT, DROPPED, MESSAGE_ID, *ORIGIN))
CONFIRM_S = 10.0
SLOWEST_BYTES_PER_S = 1_000_000

# Properties that do not affect where a message goes, how long it stays, or who may send it.
KEPT = ("content_type", "content_encoding", "correlation_id", "timestamp", "type", "app_id")
# RabbitMQ sends a copy to each queue that these headers name, possibly the queue that the message came from.
ROUTING = frozenset((b"CC", b"BCC"))
PERSISTENT = b"\x02"
_FRAME_OVERHEAD = 8 + 12  # of a content header: the frame's own octets; the class, a weight and the size of the body


class DeadLetters:
    """Publishes dead letters on one connection and waits for each confirm.

    Args:
        connection: The connection to publish on.
        queue: The queue that they come from.
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
        told = {**_origin(incoming, self._from), REASON: reason, ATTEMPTS: attempts, **_now()}
        # aiormq finds a returned message by its id: of two letters with one id it would take one for confirmed.
        async with self._turns.setdefault(message_id, asyncio.Lock()):
            channel = await self._open()
            try:
                await self._publish(channel, incoming, message_id, told)
            except DeliveryError:
                await ensure_queue(self._connection, self.queue, self._queue_type)
                await self._publish(channel, incoming, message_id, told)

    async def _publish(
        self, channel: AbstractChannel, incoming: Incoming, message_id: str, told: dict[str, Value]
    ) -> None:
        underlay = await channel.get_underlay_channel()
        longest = underlay.connection.connection_tune.frame_max
        await underlay.basic_publish(
            incoming.body,
            routing_key=self.queue,
            properties=_Octets(letter(incoming.properties, message_id, told, longest), message_id),
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


class _Octets(commands.Basic.Properties):
    """Properties as ready octets, kept as they came: re-encoding could fail or change them."""

    def __init__(self, octets: bytes, message_id: str) -> None:
        super().__init__(message_id=message_id)
        self._octets = octets

    def marshal(self) -> bytes:
        return self._octets


def letter(properties: Properties, message_id: str, told: Mapping[str, Value], frame_max: int) -> bytes:
    """Return a dead letter's properties: those of its original, octet for octet, and our headers.

    Args:
        properties: The original's properties.
        message_id: The id of the dead letter.
        told: Our headers.
        frame_max: The longest frame, in bytes; 0: no limit. If the original's headers do not fit beside ours, the
            letter omits them and says so in a header.
    """
    kept = [(name, octets) for name, octets in properties.entries if name not in OURS]
    ours = [entry(name, value) for name, value in (*told.items(), *_undecoded(properties))]
    routing = sorted({name.decode() for name, _ in kept if name in ROUTING})
    note = [entry(DROPPED, f"{', '.join(routing)}: a copy would go where they say")] if routing else []
    theirs = [octets for name, octets in kept if name not in ROUTING]
    whole = _fields(properties, message_id, [*theirs, *ours, *note])
    if not frame_max or len(whole) + _FRAME_OVERHEAD <= frame_max:
        return whole
    size = sum(map(len, theirs))
    note = [entry(DROPPED, f"all headers: they take {size:,} bytes, and a frame has {frame_max:,}")]
    return _fields(properties, message_id, [*ours, *note])


def _fields(properties: Properties, message_id: str, headers: list[bytes]) -> bytes:
    fields = {name: properties.octets[name] for name in KEPT if name in properties.octets}
    return encode({**fields, "headers": table(headers), "delivery_mode": PERSISTENT, "message_id": text(message_id)})


def _undecoded(properties: Properties) -> Iterator[tuple[str, bytes]]:
    """Yield the original's id as a header, if it is not valid text."""
    if "message_id" in properties.octets and "message_id" not in properties.values:
        yield MESSAGE_ID, properties.octets["message_id"][1:]


def _origin(incoming: Incoming, queue: str) -> dict[str, Value]:
    return dict(zip(ORIGIN, (queue, incoming.exchange, incoming.routing_key), strict=True))


def _now() -> dict[str, Value]:
    return {DIED_AT: datetime.now(UTC).isoformat()}
