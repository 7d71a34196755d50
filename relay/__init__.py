"""The relay: it reads the outbox and delivers every message until its destination has taken it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.relay import Drained, Health, Relay
    from relay.settings import HttpSettings, ListenerSettings, RabbitSettings, Settings

__all__ = ["Drained", "Health", "HttpSettings", "ListenerSettings", "RabbitSettings", "Relay", "Settings"]


def __getattr__(name: str) -> Any:
    """Import a name when it is used, so importing `relay.platform.migrations` alone does not load a relay."""
    if name in ("Drained", "Health", "Relay"):
        import relay.relay as module
    elif name in __all__:
        import relay.settings as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module 'relay' has no attribute {name!r}")
    return getattr(module, name)
