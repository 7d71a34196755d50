"""The settings of a relay: flags, then environment, then ``outbox.toml``, then defaults."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relay.destinations import registry
from relay.destinations.policy import DestinationPolicy
from relay.settings.loading import load
from relay.settings.model import DestinationSettings, Settings
from relay.settings.serve import ServeSettings

if TYPE_CHECKING:
    from relay.destinations.http.settings import HttpSettings
    from relay.destinations.listener.settings import ListenerSettings
    from relay.destinations.rabbitmq.settings import RabbitSettings

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

_OF_A_KIND = {"HttpSettings": "http", "ListenerSettings": "listener", "RabbitSettings": "rabbitmq"}


def __getattr__(name: str) -> Any:
    """Import a kind's settings when they are used: most commands do not need destinations."""
    if name not in _OF_A_KIND:
        raise AttributeError(f"module 'relay.settings' has no attribute {name!r}")
    return getattr(import_module(f"{registry.__package__}.{_OF_A_KIND[name]}.settings"), name)
