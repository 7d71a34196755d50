"""A connection with one confirming channel: many publishes under way at once, each with its own answer.

aio-pika reads: it matches confirms, nacks and returns to publishes. This module writes. aio-pika's `publish` waits
under a lock until each single message is in the socket, which takes 160 µs of processor time and a system call, more
than the broker needs. Here all messages that were published in one turn of the event loop are sent in one write, at 30
µs each (docs/decisions/0007-rabbitmq.md).

A publish stays *due* until the broker has answered or the connection is lost, with or without a waiting attempt
(`relay.destinations.sending.due`). So an alarm, which holds up the whole window, causes no duplicates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Self, cast

import aiormq
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPChannelError, ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.abc import ChannelFrame

from outbox import Message
from relay.destinations.rabbitmq.amqp import TROUBLE, Broker, explained
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.destinations.rabbitmq.wire import Wire
from relay.destinations.sending.due import Due

PREPARE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
FULL_S = 0.005  # how long to wait if aiormq takes no more data


class ChannelLost(Exception):
    """The connection ended before the broker answered.

    Args:
        error: The error from aiormq.
    """

    def __init__(self, error: BaseException | None) -> None:
        super().__init__(explained(error))
        self.is_channels = isinstance(error, AMQPChannelError)  # the connection still works
        self.is_missing = isinstance(error, ChannelNotFoundEntity)  # the exchange does not exist
        self.is_refusal = isinstance(error, ChannelPreconditionFailed)  # too large, or refused properties


class PublishingChannel:
    """A connection; `open` creates it. After it is lost it cannot be used again.

    Args:
        connection: The connection, which this object closes.
        channel: Its channel, used for nothing else.
        settings: The exchange and routing key.

    Attributes:
        due: The answers: empty if the message is taken, or an error.
        lost: Done when the connection is lost; its result is the reason.
    """

    def __init__(
        self, connection: AbstractConnection, channel: aiormq.channel.Channel, settings: RabbitSettings
    ) -> None:
        self.connection = connection
        self.due: Due[Any] = Due()
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[ChannelLost] = self._loop.create_future()
        self._channel = channel
        tune = channel.connection.connection_tune
        self._wire = Wire(settings, channel.number, tune.frame_max)
        self._unwritten: list[bytes] = []
        self._closing: asyncio.Task[None] | None = None
        channel.closing.add_done_callback(self._on_closed)

    @classmethod
    async def open(
        cls, broker: Broker, settings: RabbitSettings, prepare: Callable[[AbstractConnection], Awaitable[None]]
    ) -> Self:
        """Connect, create what is missing, and open the channel.

        Raises:
            AMQPError, OSError, TimeoutError, RuntimeError: The broker does not allow it, or cannot be reached now.
        """
        connection = await broker.connect()
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                await prepare(connection)
                channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                await channel.initialize()
                return cls(connection, cast(aiormq.channel.Channel, await channel.get_underlay_channel()), settings)
        except BaseException:
            await _close(connection)
            raise

    @property
    def is_open(self) -> bool:
        return not self.lost.done()

    @property
    def is_blocked(self) -> bool:
        """Return whether an alarm (memory, disk) makes the broker accept nothing from publishers."""
        # aiormq only offers this as an awaitable; one step shows whether it would wait.
        waiting = self._channel.connection.ready()
        try:
            waiting.send(None)
        except StopIteration:
            return False
        waiting.close()
        return True

    async def publish(self, message: Message) -> None:
        """Publish, unless an answer for this message is already due; return when the broker has confirmed the message.

        Raises:
            PublishError: No queue takes the message, so it is returned.
            DeliveryError: The broker refuses it.
            ChannelLost: The connection was lost before the answer.
            TooLong: The broker's frames are too short for its headers.
        """
        try:
            await asyncio.shield(self.due.get(message.id) or self._published(message))
        finally:
            self.due.let_go((message.id,))

    def _published(self, message: Message) -> asyncio.Future[Any]:
        if not self.is_open:
            raise self.lost.result()
        frames = self._wire.encode(message)
        answer: asyncio.Future[Any] = self._loop.create_future()
        answer.add_done_callback(partial(self._answered, message.id))
        self.due.add((message.id,), answer)
        channel = self._channel
        channel.delivery_tag += 1
        channel.confirmations[channel.delivery_tag] = answer
        channel.message_id_delivery_tag[message.id] = channel.delivery_tag
        self._write(frames)
        return answer

    async def close(self) -> None:
        """Close the connection; safe to call repeatedly, and after a cancellation."""
        if self._closing is None:
            self._closing = asyncio.create_task(_close(self.connection))
        await asyncio.shield(self._closing)

    def _answered(self, message_id: str, _: asyncio.Future[Any]) -> None:
        self._channel.message_id_delivery_tag.pop(message_id, None)

    def _write(self, frames: bytes) -> None:
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        self._unwritten.append(frames)

    def _flush(self) -> None:
        """Write everything at once, in the order of the delivery tags."""
        if not self.is_open:
            return
        payload = ChannelFrame(payload=b"".join(self._unwritten), should_close=False)
        try:
            self._channel.write_queue.put_nowait(payload)
        except asyncio.QueueFull:
            self._loop.call_later(FULL_S, self._flush)
        else:
            self._unwritten.clear()

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if closing.cancelled() else closing.exception()
        self.lost.set_result(ChannelLost(error))
        for answer in self.due:
            if not answer.done():
                answer.set_exception(ChannelLost(error))


async def _close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
    except TROUBLE:
        return  # the connection is closed either way
