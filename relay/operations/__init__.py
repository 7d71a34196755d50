"""What operators ask and do, as functions of a connection; command line and dashboard only render it."""

from relay.operations.grants import grants
from relay.operations.messages import DeliveryRow, MessageDetail, MessageRow, list_messages, show_message
from relay.operations.reading import snapshot
from relay.operations.relays import RelayStatus, live_relays
from relay.operations.status import DestinationStatus, Status, status

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
