"""Where messages go: one module per kind, and what they have in common in `contract`."""

from __future__ import annotations

from relay.destinations.contract import Destination
from relay.destinations.listener import ListenerDestination
from relay.settings import DestinationSettings, HttpSettings, ListenerSettings, Settings


def build(name: str, settings: DestinationSettings, relay: Settings) -> Destination:
    """Make a destination from its settings.

    Raises:
        SettingsError: It cannot work as it is configured.
    """
    if isinstance(settings, ListenerSettings):
        return ListenerDestination(
            name,
            settings.listener,
            database=relay.database,
            concurrency=settings.concurrency,
            timeout_s=settings.timeout_s,
        )
    # aiohttp and aio-pika take their time to be imported, and nobody needs both.
    if isinstance(settings, HttpSettings):
        from relay.destinations.http import HttpDestination

        return HttpDestination(name, settings)
    from relay.destinations.rabbitmq import RabbitDestination

    return RabbitDestination(name, settings)
