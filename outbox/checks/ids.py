"""Message ids: UUIDs of version 7, which sort by the time they were made and so keep an index's inserts together."""

from __future__ import annotations

import os
import sys
import time
from uuid import UUID

from outbox.errors import InvalidId

if sys.version_info >= (3, 14):
    from uuid import uuid7

    def new_id() -> str:
        """A fresh UUIDv7 as text."""
        return str(uuid7())

else:
    _VARIANT = "89ab"

    def new_id() -> str:
        """A fresh UUIDv7 as text: milliseconds, a 12-bit fraction of one, and 62 random bits.

        Source: https://www.rfc-editor.org/rfc/rfc9562#section-5.7, with method 3 of section 6.2.
        """
        milliseconds, rest_ns = divmod(time.time_ns(), 1_000_000)
        instant = f"{milliseconds:012x}"
        fraction = rest_ns * 4096 // 1_000_000
        random = os.urandom(8)
        variant, chance = _VARIANT[random[0] >> 6], random.hex()
        return f"{instant[:8]}-{instant[8:]}-7{fraction:03x}-{variant}{chance[1:4]}-{chance[4:]}"


def normal_id(given: UUID | str) -> str:
    """The one way we write an id: 36 characters, lower case.

    Args:
        given: A UUID, or any text that spells one.

    Raises:
        InvalidId: It is neither.

    Example:
        >>> normal_id("0197C2F0A1B27C3D8E4F5A6B7C8D9E0F")
        '0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f'
    """
    if isinstance(given, UUID):
        return str(given)
    if isinstance(given, str):
        try:
            return str(UUID(given))
        except ValueError:
            pass  # said below, as for what is no text at all
    raise InvalidId(f"the id {ascii(given)[:60]} is not a UUID: pass a uuid.UUID or its text, or leave it out")


def comparable_id(given: UUID | str) -> str:
    """Return an id as it is compared: a UUID in its normal form, however it is spelled; any other text as it is.

    Example:
        >>> comparable_id("0197C2F0A1B27C3D8E4F5A6B7C8D9E0F")
        '0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f'
        >>> comparable_id("order-7")
        'order-7'
    """
    try:
        return normal_id(given)
    except InvalidId:
        return str(given)
