"""Where messages go: one folder per kind, and what they have in common in `contract` and `policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.destinations.contract import Destination

if TYPE_CHECKING:
    from relay.settings import DestinationSettings, Settings


def build(name: str, settings: DestinationSettings, relay: Settings) -> Destination:
    """Make a destination from its settings.

    Raises:
        SettingsError: It cannot work as it is configured.
    """
    from relay.settings import HttpSettings, ListenerSettings

    if isinstance(settings, ListenerSettings):
        from relay.destinations.listener.destination import ListenerDestination

        return ListenerDestination(
            name,
            settings.listener,
            database=relay.database,
            concurrency=settings.concurrency,
            timeout_s=settings.timeout_s,
        )
    # aiohttp and aio-pika take their time to be imported, and nobody needs both.
    if isinstance(settings, HttpSettings):
        from relay.destinations.http.destination import HttpDestination

        return HttpDestination(name, settings)
    from relay.destinations.rabbitmq.destination import RabbitDestination

    return RabbitDestination(name, settings)
