"""A transactional outbox: write your result and a message about it in one transaction."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# An application gets every name when it imports this package, because `emit` registers its session listeners at import,
# and that must not happen in the middle of a session. Our own commands import what they need before they open a
# session; most of them emit nothing and need no ORM.
if TYPE_CHECKING or "outbox_cli" not in sys.modules:
    from outbox.draft import Draft
    from outbox.errors import (
        DuplicateId,
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
    "DuplicateId",
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

_MODULES = ("errors", "event", "message", "draft", "producer")  # the modules that import the least come first


def __getattr__(name: str) -> Any:
    """Import a name when a command asks for it."""
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"outbox.{module}"))
            if name in found:
                return globals().setdefault(name, found[name])
    raise AttributeError(f"module 'outbox' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
