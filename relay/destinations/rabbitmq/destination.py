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
from relay.destinations.rabbitmq.wire import Address, TooLong
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

    When a broker closes a channel, it takes down every publish under way on it, and does not say which one it was
    closed for. Each of them is then published again alone, on a separate connection: if that channel is closed, its
    only message is at fault.

    Args:
        name: The destination's name.
        settings: The broker, the exchange and the limits.
    """

    def __init__(self, name: str, settings: RabbitSettings) -> None:
        self.name = name
        self.concurrency = settings.concurrency
        self._timeout_s = settings.timeout_s
        self._address = Address(settings.exchange, settings.routing_key, settings.ttl_s)
        self._routing_key = naming.namer(settings.routing_key)
        self._broker = Broker.of(settings, f"outbox relay: {name}")
        self._topology: Topology | None = None
        if settings.declare:
            self._topology = Topology(name, settings.exchange, settings.events, settings.queue_type)
        self._channels = Connector(self._open_channel)
        self._channels_aside = Connector(self._open_channel)
        self._one_at_a_time = asyncio.Lock()
        self._broker.check()

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
                    return self._no_connection(error)
                if channel.is_blocked and message.id not in channel.pending:
                    return unreachable(BLOCKED)
                return await self._publish(channel, message)
        except TimeoutError:
            return self._late(channel, message)

    async def close(self) -> None:
        await self._channels.close()
        await self._channels_aside.close()

    def _late(self, channel: PublishingChannel | None, message: Message) -> Outcome:
        if channel is None:
            return unreachable(f"no connection to {self._broker} within {self._timeout_s} s")
        channel.abandon(message.id)
        return unreachable(BLOCKED) if channel.is_blocked else unanswered(f"no confirm within {self._timeout_s} s")

    async def _publish(self, channel: PublishingChannel, message: Message) -> Outcome:
        try:
            await asyncio.shield(channel.publish(message))
            return TAKEN
        except PublishError as returned:
            return await self._publish_mended(channel, message, returned)
        except DeliveryError:
            return unanswered("the broker refused to take charge of it (nack)")
        except TooLong as error:
            return refused(str(error))
        except ChannelLost as loss:
            if loss.is_channels and not loss.is_missing:
                return await self._publish_alone(message)
            return _outcome(loss)

    async def _publish_mended(self, channel: PublishingChannel, message: Message, returned: PublishError) -> Outcome:
        """Create the missing queue for a returned message, if the settings allow it, and publish once more."""
        key = self._routing_key(message)
        reason = f"no queue takes it: exchange {self._address.exchange}, routing key {key} ({explained(returned)})"
        try:
            if self._topology is None or not await self._topology.mend(channel.connection, message.type):
                return failed(reason)
            await asyncio.shield(channel.publish(message))
        except (DeliveryError, *TROUBLE):
            return failed(reason)
        except ChannelLost as loss:
            return _outcome(loss)
        return TAKEN

    async def _publish_alone(self, message: Message) -> Outcome:
        async with self._one_at_a_time:
            try:
                channel = await self._channels_aside.get()
                await asyncio.shield(channel.publish(message))
            except ChannelLost as loss:
                return _outcome(loss)
            except DeliveryError as error:
                return failed(explained(error))
            except TROUBLE as error:
                return self._no_connection(error)
        return TAKEN

    def _no_connection(self, error: BaseException) -> Outcome:
        return unreachable(f"no connection to {self._broker}: {explained(error)}")

    async def _open_channel(self) -> PublishingChannel:
        try:
            channel = await PublishingChannel.open(self._broker, self._address, self._prepare)
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


def _outcome(loss: ChannelLost) -> Outcome:
    if loss.is_refusal:
        return refused(f"the broker closed the channel because of it: {loss}")
    if loss.is_channels and not loss.is_missing:
        return failed(f"the broker closed the channel because of it: {loss}")
    return unreachable(f"the broker closed the channel: {loss}" if loss.is_missing else f"connection lost: {loss}")
