"""A transactional outbox: write your result and a message about it in one transaction."""

from outbox.draft import Draft
from outbox.errors import (
    EmitError,
    InvalidData,
    InvalidDelay,
    InvalidEvent,
    InvalidHeaders,
    InvalidId,
    InvalidOrderingKey,
    InvalidSource,
    InvalidSubject,
    InvalidTarget,
    InvalidType,
    NoTransaction,
    OutboxError,
    Reject,
    TooDeep,
    TooLarge,
    TransactionHeld,
    UnknownEvent,
    UntypedEvent,
)
from outbox.event import Event
from outbox.message import Message
from outbox.producer import Outbox, emit, emit_async, emit_many, emit_many_async, once, once_async

__version__ = "0.1.0"

__all__ = [
    "Draft",
    "EmitError",
    "Event",
    "InvalidData",
    "InvalidDelay",
    "InvalidEvent",
    "InvalidHeaders",
    "InvalidId",
    "InvalidOrderingKey",
    "InvalidSource",
    "InvalidSubject",
    "InvalidTarget",
    "InvalidType",
    "Message",
    "NoTransaction",
    "Outbox",
    "OutboxError",
    "Reject",
    "TooDeep",
    "TooLarge",
    "TransactionHeld",
    "UnknownEvent",
    "UntypedEvent",
    "emit",
    "emit_async",
    "emit_many",
    "emit_many_async",
    "once",
    "once_async",
]
