"""Message ids: UUIDs of version 7. They sort by the time of their creation, so an index inserts them close together."""

from __future__ import annotations

import os
import sys
import time
from uuid import UUID

from outbox.errors import InvalidId

if sys.version_info >= (3, 14):
    from uuid import uuid7

    def new_id() -> str:
        """Return a new UUIDv7 as text."""
        return str(uuid7())

else:
    _VARIANT = "89ab"
    _last = 0

    def new_id() -> str:
        """Return a new UUIDv7 as text: milliseconds, a 12-bit fraction of a millisecond, and 62 random bits.

        It sorts after the last one of this process, even if the clock stood still or was set back, as in Python 3.14.

        Source: https://www.rfc-editor.org/rfc/rfc9562#section-5.7 (section 6.2, method 3)
        """
        global _last
        now = time.time_ns() * 4096 // 1_000_000
        _last = now = now if now > _last else _last + 1
        instant = f"{now:015x}"
        random = os.urandom(8)
        variant, chance = _VARIANT[random[0] >> 6], random.hex()
        return f"{instant[:8]}-{instant[8:12]}-7{instant[12:]}-{variant}{chance[1:4]}-{chance[4:]}"


def normal_id(given: UUID | str) -> str:
    """Return an id in its normal form: 36 characters, lower case.

    Args:
        given: A UUID, or text in any spelling of one.

    Raises:
        InvalidId: ``given`` is not a UUID.

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
            pass  # the error below covers this case and values that are not text
    raise InvalidId(f"the id {ascii(given)[:60]} is not a UUID: pass a uuid.UUID or its text, or leave it out")


def comparable_id(given: UUID | str) -> str:
    """Return an id in the form in which ids are compared: a UUID in its normal form, any other text unchanged.

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
