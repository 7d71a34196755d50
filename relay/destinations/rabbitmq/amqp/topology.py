"""Create missing exchanges, queues and bindings on a broker. Existing ones are used unchanged.

To declare an existing exchange or queue with other properties is an error that closes the channel, and the integration
guide's publisher makes its exchange transient. So each object is looked up first (a *passive* declaration), and created
only if it does not exist. Each lookup uses its own channel, because a negative answer closes the channel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Literal

import structlog
from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPChannelError, ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.common import Arguments

from relay.destinations.rabbitmq.amqp.broker import explained

log = structlog.get_logger("relay")

QueueType = Literal["classic", "quorum"]
Request = Callable[[AbstractChannel], Awaitable[object]]


async def ensure_exchange(connection: AbstractConnection, name: str, *, durable: bool = True) -> bool:
    """Create a topic exchange if it is missing; return ``True`` if it had to be created."""
    return await _ensure(
        connection,
        lambda channel: channel.declare_exchange(name, passive=True),
        lambda channel: channel.declare_exchange(name, ExchangeType.TOPIC, durable=durable),
    )


async def ensure_queue(connection: AbstractConnection, name: str, queue_type: QueueType = "classic") -> bool:
    """Create a missing queue; return ``True`` if it was missing. It is plain and durable, as clients declare it."""
    arguments: Arguments = {"x-queue-type": "quorum"} if queue_type == "quorum" else None
    return await _ensure(
        connection,
        lambda channel: channel.declare_queue(name, passive=True),
        lambda channel: channel.declare_queue(name, durable=True, arguments=arguments),
    )


async def ensure_topology(
    connection: AbstractConnection,
    exchange: str,
    queues: Iterable[str],
    queue_type: QueueType,
    *,
    durable: bool = True,
    **who: str,
) -> bool:
    """Create what is missing: the exchange, and queues that are bound to it by their names.

    Objects that the login may not create are left to the operator.

    Args:
        connection: The connection to the broker.
        exchange: The exchange's name.
        queues: The queues' names.
        queue_type: The type of queues that are created.
        durable: Whether an exchange that is created is durable.
        who: Further fields for the log lines.

    Returns:
        Whether everything is there.
    """
    try:
        if await ensure_exchange(connection, exchange, durable=durable):
            log.info("exchange_created", exchange=exchange, durable=durable, **who)
        for queue in queues:
            if await ensure_queue(connection, queue, queue_type):
                log.info("queue_created", queue=queue, **who)
            async with connection.channel(publisher_confirms=False) as channel:
                bound = await channel.get_queue(queue, ensure=False)
                await bound.bind(exchange, queue)
    except AMQPChannelError as error:
        log.warning("topology_not_permitted", reason=explained(error), **who)
        return False
    return True


async def _ensure(connection: AbstractConnection, look: Request, create: Request) -> bool:
    with suppress(ChannelNotFoundEntity):
        await _ask(connection, look)
        return False
    try:
        await _ask(connection, create)
    except ChannelPreconditionFailed:
        return False  # another client created it first, with other properties: use it unchanged
    return True


async def _ask(connection: AbstractConnection, request: Request) -> None:
    async with connection.channel(publisher_confirms=False) as channel:
        await request(channel)
