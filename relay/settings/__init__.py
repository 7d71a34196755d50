"""What a relay is told: flags, then environment, then ``outbox.toml``, then defaults."""

from relay.settings.destination import DestinationPolicy
from relay.settings.http import HttpSettings
from relay.settings.listener import ListenerSettings
from relay.settings.loading import load
from relay.settings.model import DestinationSettings, Settings
from relay.settings.rabbitmq import RabbitSettings
from relay.settings.serve import ServeSettings

__all__ = [
    "DestinationPolicy",
    "DestinationSettings",
    "HttpSettings",
    "ListenerSettings",
    "RabbitSettings",
    "ServeSettings",
    "Settings",
    "load",
]
