"""The relay reads the outbox and delivers every message until its destination has taken it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.destinations.http.settings import HttpSettings
    from relay.destinations.listener.settings import ListenerSettings
    from relay.destinations.rabbitmq.settings import RabbitSettings
    from relay.relay import Drained, Health, Relay
    from relay.settings import Settings

__all__ = ["Drained", "Health", "HttpSettings", "ListenerSettings", "RabbitSettings", "Relay", "Settings"]

_HOMES = {
    "HttpSettings": "destinations.http.settings",
    "ListenerSettings": "destinations.listener.settings",
    "RabbitSettings": "destinations.rabbitmq.settings",
    "Settings": "settings",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that importing `relay.databases.migrations` does not load a relay."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'relay')}"), name)
