"""Test whether a broker accepts our connection, without sending a message."""

from __future__ import annotations

from relay.destinations.kind import Probed
from relay.destinations.rabbitmq.amqp import Broker
from relay.destinations.rabbitmq.settings import RabbitSettings

TIMEOUT_S = 10.0


async def probe(name: str, settings: RabbitSettings) -> Probed:
    """Connect, and look for the exchange if we do not create it."""
    connection = await Broker.of(settings, f"outbox probe: {name}").connect(TIMEOUT_S)
    try:
        channel = await connection.channel()
        if not settings.declare:
            await channel.get_exchange(settings.exchange, ensure=True)
    finally:
        await connection.close()
    what = "" if settings.declare else f", and the exchange {settings.exchange} is there"
    return Probed(
        True,
        f"the broker lets us in{what}",
        "name, connection, TLS, user, password, virtual host; the first event will show whether a queue takes it",
    )
