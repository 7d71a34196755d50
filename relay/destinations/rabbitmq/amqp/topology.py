"""Create missing exchanges, queues and bindings on a broker. Existing ones are used unchanged.

Redeclaring an exchange or a queue with other properties is an error that closes the channel, and the integration
guide's publisher makes its exchange transient. So each object is looked up first (a *passive* declaration), and created
only if it does not exist. Each lookup uses its own channel, because a negative answer closes the channel.
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
    """Create a topic exchange if it is missing; return ``True`` if it had to be created."""
    if await _answers(connection, lambda channel: channel.declare_exchange(name, passive=True)):
        return False
    try:
        async with connection.channel(publisher_confirms=False) as channel:
            await channel.declare_exchange(name, ExchangeType.TOPIC, durable=durable)
    except ChannelPreconditionFailed:
        return False  # another client created it first, with other properties: use it unchanged
    return True


async def ensure_queue(connection: AbstractConnection, name: str, queue_type: QueueType = "classic") -> bool:
    """Create a missing queue; return ``True`` if it was missing. It is plain and durable, as clients assert it."""
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
    """Bind the queue to the exchange, for messages with this routing key."""
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
