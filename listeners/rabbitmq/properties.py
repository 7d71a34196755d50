"""Decode the properties of a message from their octets, with pamqp. Decoding never raises.

RabbitMQ checks little of what a publisher sends: text need not be UTF-8, a timestamp need not be in seconds, tables may
be nested thousands deep. Properties that cannot be decoded have a `problem`, and their octets are kept, because a dead
letter carries them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from pamqp.commands import Basic
from pamqp.header import ContentHeader

LONGEST = 32 * 1024  # bytes: pamqp's time grows with the square of the length
HEAD = struct.Struct(">HHQ")  # the start of a content header: the class, a weight, and the size of the body


@dataclass(slots=True)
class Properties:
    """The properties of a message.

    Attributes:
        octets: The octets.
        values: The values, as far as they could be decoded.
        problem: Why they cannot be decoded; ``None`` if they can be.
    """

    octets: bytes
    values: Basic.Properties
    problem: str | None = None

    @property
    def headers(self) -> dict[str, Any]:
        """The headers."""
        return dict(self.values.headers or {})


def decode(octets: bytes) -> Properties:
    """Return the properties that a content header holds after the size of the body."""
    header = ContentHeader()
    values = header.properties
    if len(octets) > LONGEST:
        problem = f"its properties have {len(octets):,} bytes, and at most {LONGEST:,} are read"
        return Properties(octets, values, problem)
    try:
        header.unmarshal(HEAD.pack(Basic.frame_id, 0, 0) + octets)
    except Exception as error:  # errors of many types: text that is not UTF-8, a time out of range, a deep nesting
        return Properties(octets, values, f"its properties cannot be decoded: {type(error).__name__}: {error}")
    return Properties(octets, values)
