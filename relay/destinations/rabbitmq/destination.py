"""Publish to a topic exchange; a message is delivered when the broker has confirmed it and not returned it."""

from __future__ import annotations

import asyncio

import structlog
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import DeliveryError, PublishError

from outbox import Message
from relay.decide.outcome import TAKEN, Outcome, failed, refused, unanswered, unreachable
from relay.destinations.rabbitmq.amqp import TROUBLE, Broker, explained
from relay.destinations.rabbitmq.channel import ChannelLost, PublishingChannel
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.destinations.rabbitmq.topology import Topology
from relay.destinations.rabbitmq.wire import TooLong
from relay.destinations.sending import naming
from relay.destinations.sending.connector import Connector

BLOCKED = "the broker accepts nothing from publishers: it is short of memory or disk (an alarm)"

log = structlog.get_logger("relay")


class RabbitDestination:
    """Delivers to RabbitMQ.

    | the broker …                                  | outcome                                              |
    |-----------------------------------------------|------------------------------------------------------|
    | confirms, and has not returned it             | taken                                                |
    | returns it: no queue is bound for its type    | failed, if the queue could not be created either     |
    | says no (nack), or does not answer in time    | unanswered                                           |
    | closes the channel because of it              | refused (406), failed (403 and others)               |
    | has no such exchange, is away, blocks, is lost| unreachable                                          |

    When a broker closes a channel, every publish under way on it fails, and the broker does not say which one was the
    cause. Each message is then published again alone, on a separate connection: if that channel is closed, its only
    message is at fault.

    Args:
        name: The destination's name.
        settings: The broker, the exchange and the limits.
    """

    def __init__(self, name: str, settings: RabbitSettings) -> None:
        self.name = name
        self.concurrency = settings.concurrency
        self._timeout_s = settings.timeout_s
        self._settings = settings
        self._routing_key = naming.namer(settings.routing_key)
        self._broker = Broker.of(settings, f"outbox relay: {name}")
        self._topology = Topology(name, settings) if settings.declare else None
        self._channels = Connector(self._open_channel)
        self._channels_aside = Connector(self._open_channel)
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Begin to connect. The destination also starts while the broker is away."""
        self._channels.begin()

    async def send(self, message: Message) -> Outcome:
        channel: PublishingChannel | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    channel = await self._channels.get()
                except TROUBLE as error:
                    return self._judged(error, message)
                if channel.is_blocked and channel.due.get(message.id) is None:
                    return unreachable(BLOCKED)
                return await self._publish(channel, message)
        except TimeoutError:
            return self._late(channel)

    async def close(self) -> None:
        await self._channels.close()
        await self._channels_aside.close()

    def _late(self, channel: PublishingChannel | None) -> Outcome:
        if channel is None:
            return unreachable(f"no connection to {self._broker} within {self._timeout_s} s")
        return unreachable(BLOCKED) if channel.is_blocked else unanswered(f"no confirm within {self._timeout_s} s")

    async def _publish(self, channel: PublishingChannel, message: Message) -> Outcome:
        try:
            try:
                await channel.publish(message)
            except PublishError:
                if self._topology is None or not await self._topology.mend(channel.connection, message.type):
                    raise
                await channel.publish(message)
            except ChannelLost as loss:
                if not loss.is_channels or loss.is_missing:
                    raise
                await self._publish_alone(message)
        except (DeliveryError, TooLong, ChannelLost, *TROUBLE) as error:
            return self._judged(error, message)
        return TAKEN

    async def _publish_alone(self, message: Message) -> None:
        async with self._one_at_a_time:
            channel = await self._channels_aside.get()
            await channel.publish(message)

    def _judged(self, error: Exception, message: Message) -> Outcome:
        match error:
            case PublishError():
                where = f"exchange {self._settings.exchange}, routing key {self._routing_key(message)}"
                return failed(f"no queue takes it: {where} ({explained(error)})")
            case DeliveryError():
                return unanswered("the broker refused to take charge of it (nack)")
            case TooLong():
                return refused(str(error))
            case ChannelLost() if error.is_missing:
                return unreachable(f"the broker closed the channel: {error}")
            case ChannelLost() if error.is_channels:
                judged = refused if error.is_refusal else failed
                return judged(f"the broker closed the channel because of it: {error}")
            case ChannelLost():
                return unreachable(f"connection lost: {error}")
        return unreachable(f"no connection to {self._broker}: {explained(error)}")

    async def _open_channel(self) -> PublishingChannel:
        try:
            channel = await PublishingChannel.open(self._broker, self._settings, self._prepare)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise ConnectionError(explained(error)) from None  # aiormq cancels its own futures: the broker went silent
        log.info("broker_connected", destination=self.name)
        return channel

    async def _prepare(self, connection: AbstractConnection) -> None:
        if self._topology is not None:
            await self._topology.prepare(connection)
