"""Create this destination's objects on the broker: its exchange, and a bound queue for each event type.

Event types that the subscription names have their queues before the first publish. A type that only a pattern covers
gets its queue when the broker returns the first message because no queue takes it. (If an operator has bound a queue,
ours is unnecessary.) In the same way the relay restores a queue or a binding that is deleted while it runs.
"""

from __future__ import annotations

import asyncio

from aio_pika.abc import AbstractConnection

from relay.destinations.rabbitmq.amqp import ensure_topology
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.destinations.sending import naming

MOST_QUEUES = 1000  # enough, unless event types are generated


class Topology:
    """Creates what is missing.

    Args:
        destination: The destination's name, for the log.
        settings: The exchange, the subscription, and the type of queues that are created.
    """

    def __init__(self, destination: str, settings: RabbitSettings) -> None:
        self._destination = destination
        self._settings = settings
        self._types = set(naming.known_names(settings.routing_key, settings.events))
        self._mending: dict[str, asyncio.Task[bool]] = {}

    async def prepare(self, connection: AbstractConnection) -> None:
        """Prepare a new connection before the first publish."""
        await self._ensure(connection, *sorted(self._types))

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
        is_there = await self._ensure(connection, event_type)
        if is_there:
            self._types.add(event_type)
        return is_there

    async def _ensure(self, connection: AbstractConnection, *queues: str) -> bool:
        settings = self._settings
        return await ensure_topology(
            connection, settings.exchange, queues, settings.queue_type, destination=self._destination
        )
