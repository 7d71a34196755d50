"""What has to exist on a broker. What does exist is used as it is, whoever made it and however.

Redeclaring an exchange or a queue with other properties is an error that closes the channel, and the integration
guide's publisher makes its exchange transient. So everything is first asked for (a *passive* declaration), and
created only when it is not there; each question goes through a channel of its own, because "no" closes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.common import Arguments

QueueType = Literal["classic", "quorum"]
Question = Callable[[AbstractChannel], Awaitable[object]]


async def ensure_exchange(connection: AbstractConnection, name: str, *, durable: bool = True) -> bool:
    """Have a topic exchange; ``True`` if it had to be created."""
    if await _answers(connection, lambda channel: channel.declare_exchange(name, passive=True)):
        return False
    try:
        async with connection.channel(publisher_confirms=False) as channel:
            await channel.declare_exchange(name, ExchangeType.TOPIC, durable=durable)
    except ChannelPreconditionFailed:
        return False  # somebody else was faster, and wants it otherwise: as it is, then
    return True


async def ensure_queue(connection: AbstractConnection, name: str, queue_type: QueueType = "classic") -> bool:
    """Have a queue; ``True`` if it had to be created: plain and durable, so that whoever asserts just that may."""
    if await _answers(connection, lambda channel: channel.declare_queue(name, passive=True)):
        return False
    arguments: Arguments = {"x-queue-type": "quorum"} if queue_type == "quorum" else None
    try:
        async with connection.channel(publisher_confirms=False) as channel:
            await channel.declare_queue(name, durable=True, arguments=arguments)
    except ChannelPreconditionFailed:
        return False
    return True


async def bind(connection: AbstractConnection, queue: str, exchange: str, routing_key: str) -> None:
    """Have what is published to the exchange with this routing key arrive in the queue."""
    async with connection.channel(publisher_confirms=False) as channel:
        bound = await channel.get_queue(queue, ensure=False)
        await bound.bind(exchange, routing_key)


async def _answers(connection: AbstractConnection, question: Question) -> bool:
    try:
        async with connection.channel(publisher_confirms=False) as channel:
            await question(channel)
    except ChannelNotFoundEntity:
        return False
    return True
