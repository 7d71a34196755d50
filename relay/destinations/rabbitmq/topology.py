"""Create this destination's objects on the broker: its exchange, and a bound queue for each event type.

Event types that the subscription names have their queues before the first publish. A type that only a pattern covers
gets one when the broker returns its first message because no queue takes it: an operator's own bound queue makes ours
unnecessary. The same repairs a queue or a binding that is deleted while the relay runs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import structlog
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPChannelError

from relay.destinations.rabbitmq.amqp import bind, ensure_exchange, ensure_queue, explained
from relay.destinations.rabbitmq.amqp.topology import QueueType

MOST_QUEUES = 1000  # enough, unless event types are generated

log = structlog.get_logger("relay")


class Topology:
    """Creates what is missing.

    Args:
        destination: The destination's name, for the log.
        exchange: The exchange's name.
        events: The subscription: event types, and globs.
        queue_type: The type of queues that are created.
    """

    def __init__(self, destination: str, exchange: str, events: Iterable[str], queue_type: QueueType) -> None:
        self._destination = destination
        self._exchange = exchange
        self._queue_type: QueueType = queue_type
        self._types = {event for event in events if not re.search(r"[*?\[]", event)}
        self._mending: dict[str, asyncio.Task[bool]] = {}

    async def prepare(self, connection: AbstractConnection) -> None:
        """Prepare a new connection before the first publish. What the login may not create is left to the operator."""
        try:
            if await ensure_exchange(connection, self._exchange):
                log.info("exchange_created", destination=self._destination, exchange=self._exchange)
            for event_type in sorted(self._types):
                await self._ensure_queue(connection, event_type)
        except AMQPChannelError as error:
            log.warning("topology_not_permitted", destination=self._destination, reason=explained(error))

    async def mend(self, connection: AbstractConnection, event_type: str) -> bool:
        """Create the queue of an event type whose message was returned. Concurrent calls do this once.

        Returns:
            Whether to publish the messages again.
        """
        task = self._mending.get(event_type)
        if task is None:
            if event_type not in self._types and len(self._types) >= MOST_QUEUES:
                return False
            task = asyncio.create_task(self._mend(connection, event_type))
            self._mending[event_type] = task
            task.add_done_callback(lambda _: self._mending.pop(event_type))
        return await asyncio.shield(task)

    async def _mend(self, connection: AbstractConnection, event_type: str) -> bool:
        try:
            await self._ensure_queue(connection, event_type)
        except AMQPChannelError as error:
            log.warning("topology_not_permitted", destination=self._destination, reason=explained(error))
            return False
        self._types.add(event_type)
        return True

    async def _ensure_queue(self, connection: AbstractConnection, event_type: str) -> None:
        if await ensure_queue(connection, event_type, self._queue_type):
            log.info("queue_created", destination=self._destination, queue=event_type)
        await bind(connection, event_type, self._exchange, event_type)
