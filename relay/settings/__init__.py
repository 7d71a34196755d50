"""What a relay is told: flags, then environment, then ``outbox.toml``, then defaults."""

from relay.destinations.http.settings import HttpSettings
from relay.destinations.listener.settings import ListenerSettings
from relay.destinations.policy import DestinationPolicy
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.settings.loading import load
from relay.settings.model import DestinationSettings, Settings
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
