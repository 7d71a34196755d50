"""One connection with one confirming channel: many publishes under way at once, each with its own answer.

aio-pika reads: it matches confirms, nacks and returns to publishes. We write. Its `publish` waits under a lock until
each message alone is in the socket: 160 µs of processor time and a system call for each, more than the broker needs.
Here all that was published in one turn of the event loop goes out in one write, at 30 µs each
(docs/decisions/0007-rabbitmq.md).

A publish stays *pending* until the broker has answered or the line is lost, whether or not anybody still waits for
it: a message tried again meanwhile waits for the answer that is due, instead of being published twice. A confirm that
comes when nobody waits is kept for a minute, for whoever tries again: an alarm, which holds up the whole window, then
costs no copies. Not for longer: by then the message may be another relay's, and published anew because somebody wants
a replay.
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
LATE_S = 60.0  # how long a confirm is kept for which nobody was waiting any more
FULL_S = 0.005  # how long to wait when aiormq takes nothing more


class LineLost(Exception):
    """The line ended before the broker answered.

    Args:
        error: Why, as aiormq says it.
    """

    def __init__(self, error: BaseException | None) -> None:
        super().__init__(explained(error))
        self.is_channels = isinstance(error, AMQPChannelError)  # the connection was well
        self.is_missing = isinstance(error, ChannelNotFoundEntity)  # no such exchange
        self.is_refusal = isinstance(error, ChannelPreconditionFailed)  # too large, or properties it will not have


class Line:
    """Made by `open`; when it is lost it is done with.

    Args:
        connection: The connection, which this line closes.
        channel: Its channel, on which nobody else publishes.
        address: Where to.

    Attributes:
        pending: Message id → the answer that is due: nothing when it is taken, or an error.
        lost: Done when the line is, with the reason.
    """

    def __init__(self, connection: AbstractConnection, channel: aiormq.channel.Channel, address: Address) -> None:
        self.connection = connection
        self.pending: dict[str, asyncio.Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[LineLost] = self._loop.create_future()
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
        """Connect, have everything there that is needed, open the channel.

        Raises:
            AMQPError, OSError, TimeoutError, RuntimeError: It cannot be done now.
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
        """Whether an alarm (memory, disk) makes the broker take nothing from publishers."""
        # aiormq shows this only as something to wait for; one step tells whether there is anything to wait for.
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
            The answer. Shield it: it outlives who waits for it.

            It is an error when the message is returned, because no queue takes it (``PublishError``), when the broker
            says no (``DeliveryError``), and when the line is lost before it has said anything (``LineLost``).

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
        """Nobody waits for this answer any more."""
        if message_id in self.pending:
            self._abandoned.add(message_id)

    async def close(self) -> None:
        """Close the connection, however often, and however often interrupted."""
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
        """Write all at once, in the order of their delivery tags."""
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
        self.lost.set_result(LineLost(error))
        for answer in list(self.pending.values()):
            if not answer.done():
                answer.set_exception(LineLost(error))
                answer.exception()  # somebody may wait for it, or nobody


async def _close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
    except TROUBLE:
        return  # it is gone either way
