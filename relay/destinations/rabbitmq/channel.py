"""A connection with one confirming channel: many publishes under way at once, each with its own answer.

aio-pika reads: it matches confirms, nacks and returns to publishes. This module writes. aio-pika's `publish` waits
under a lock until each single message is in the socket, which takes 160 µs of processor time and a system call, more
than the broker needs. Here all messages that were published in one turn of the event loop are sent in one write, at 30
µs each (docs/decisions/0007-rabbitmq.md).

A publish stays *pending* until the broker has answered or the connection is lost, with or without a waiting attempt. A
new attempt at the message waits for the answer that is due, instead of publishing it again. A confirm that arrives
while no attempt waits is kept for a minute, for the next attempt: so an alarm, which holds up the whole window, causes
no duplicates. Longer would be wrong: by then another relay may own the message, or an operator may have replayed it, so
that it must be published again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any, Self, cast

import aiormq
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPChannelError, ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.abc import ChannelFrame

from outbox import Message
from relay.destinations.rabbitmq.amqp import TROUBLE, Broker, explained
from relay.destinations.rabbitmq.wire import Address, Wire

PREPARE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
LATE_S = 60.0  # how long a confirm is kept while no attempt waits for it
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
        address: The exchange and routing key.

    Attributes:
        pending: Message id → the answer that is due: empty if the message is taken, or an error.
        lost: Done when the connection is lost; its result is the reason.
    """

    def __init__(self, connection: AbstractConnection, channel: aiormq.channel.Channel, address: Address) -> None:
        self.connection = connection
        self.pending: dict[str, asyncio.Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[ChannelLost] = self._loop.create_future()
        self._channel = channel
        tune = channel.connection.connection_tune
        self._wire = Wire(address, channel.number, tune.frame_max)
        self._unwritten: list[bytes] = []
        self._abandoned: set[str] = set()
        self._late: dict[str, float] = {}
        self._closing: asyncio.Task[None] | None = None
        channel.closing.add_done_callback(self._on_closed)

    @classmethod
    async def open(
        cls, broker: Broker, address: Address, prepare: Callable[[AbstractConnection], Awaitable[None]]
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
                return cls(connection, cast(aiormq.channel.Channel, await channel.get_underlay_channel()), address)
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

    def publish(self, message: Message) -> asyncio.Future[Any]:
        """Publish, unless an answer for this message is due already.

        Returns:
            The answer. Shield it: it continues after its caller has been cancelled.

            It is an error if no queue takes the message and it is returned (``PublishError``), if the broker refuses it
            (``DeliveryError``), or if the connection is lost before the answer (``ChannelLost``).

        Raises:
            TooLong: The broker's frames are too short for its headers.
        """
        due = self.pending.get(message.id)
        if due is not None:
            self._abandoned.discard(message.id)
            return due
        answer: asyncio.Future[Any] = self._loop.create_future()
        if not self.is_open:
            answer.set_exception(self.lost.result())
            return answer
        if self._late.pop(message.id, -LATE_S) > monotonic() - LATE_S:
            answer.set_result(None)
            return answer
        frames = self._wire.encode(message)
        answer.add_done_callback(partial(self._answered, message.id))
        self.pending[message.id] = answer
        channel = self._channel
        channel.delivery_tag += 1
        channel.confirmations[channel.delivery_tag] = answer
        channel.message_id_delivery_tag[message.id] = channel.delivery_tag
        self._write(frames)
        return answer

    def abandon(self, message_id: str) -> None:
        """Note that no attempt waits for this answer any more."""
        if message_id in self.pending:
            self._abandoned.add(message_id)

    async def close(self) -> None:
        """Close the connection; safe to call repeatedly, and after a cancellation."""
        if self._closing is None:
            self._closing = asyncio.create_task(_close(self.connection))
        await asyncio.shield(self._closing)

    def _answered(self, message_id: str, answer: asyncio.Future[Any]) -> None:
        self.pending.pop(message_id, None)
        self._channel.message_id_delivery_tag.pop(message_id, None)
        if message_id in self._abandoned:
            self._abandoned.discard(message_id)
            if answer.exception() is None:
                self._keep_late(message_id)

    def _keep_late(self, message_id: str) -> None:
        now = monotonic()
        self._late[message_id] = now
        while (oldest := next(iter(self._late.items())))[1] < now - LATE_S:
            del self._late[oldest[0]]

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
        for answer in list(self.pending.values()):
            if not answer.done():
                answer.set_exception(ChannelLost(error))
                answer.exception()  # retrieved here, because an attempt may no longer wait for it


async def _close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
    except TROUBLE:
        return  # it is closed either way
