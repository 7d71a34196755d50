"""Operators' questions and actions, as functions of a connection; command line and dashboard only render them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.admin.access.queries import snapshot
from relay.admin.grants import grants
from relay.admin.relays import RelayStatus, live_relays
from relay.admin.status import DestinationStatus, Status, status

if TYPE_CHECKING:
    from relay.admin.messages.detail import DeliveryRow, MessageDetail, show_message
    from relay.admin.messages.listing import MessageRow, list_messages

__all__ = [
    "DeliveryRow",
    "DestinationStatus",
    "MessageDetail",
    "MessageRow",
    "RelayStatus",
    "Status",
    "grants",
    "list_messages",
    "live_relays",
    "show_message",
    "snapshot",
    "status",
]


def __getattr__(name: str) -> Any:
    """Import the modules about messages when they are used: `outbox status` needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module 'relay.admin' has no attribute {name!r}")
    from relay.admin.messages import detail as showing
    from relay.admin.messages import listing as messages

    return getattr(messages if hasattr(messages, name) else showing, name)
