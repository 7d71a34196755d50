"""What operators ask and do, as functions of a connection; command line and dashboard only render it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.operations.grants import grants
from relay.operations.reading import snapshot
from relay.operations.relays import RelayStatus, live_relays
from relay.operations.status import DestinationStatus, Status, status

if TYPE_CHECKING:
    from relay.operations.messages import MessageRow, list_messages
    from relay.operations.showing import DeliveryRow, MessageDetail, show_message

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
    """Import what is about messages when it is asked for: `outbox status` asks for none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'relay.operations' has no attribute {name!r}")
    from relay.operations import messages, showing

    return getattr(messages if hasattr(messages, name) else showing, name)
