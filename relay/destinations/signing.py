"""Standard Webhooks signatures: who sent this, when, and exactly these bytes.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Sequence


def signature(keys: Sequence[bytes], message_id: str, timestamp: str, body: bytes) -> str:
    """The ``webhook-signature`` of a message: one signature for each key, so that keys can be rotated.

    Args:
        keys: The keys, the current one first.
        message_id: The ``webhook-id``.
        timestamp: The ``webhook-timestamp``: seconds since 1970.
        body: Exactly the bytes that go over the wire.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + _base64(hmac.digest(key, content, "sha256")) for key in keys)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
