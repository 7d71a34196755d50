"""Standard Webhooks signatures: they prove the sender, the time and the exact bytes.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import sha256

PREFIX = "whsec_"
SHORTEST_KEY = 24  # bytes, as the specification requires
BLOCK_BYTES = 64


def signing_key(text: str) -> bytes:
    """Return the key in a ``whsec_…`` text.

    Raises:
        ValueError: The text is malformed. The error does not repeat the text, which is a secret.
    """
    if not text.startswith(PREFIX):
        raise ValueError(f"a signing key begins with {PREFIX}, followed by base64")
    encoded = text.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the text after {PREFIX} is not base64") from None
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"a signing key has at least {SHORTEST_KEY} bytes, but this one has {len(key)}")
    return key


class Key:
    """HMAC-SHA-256 with a prepared key.

    The standard library's `hmac.digest` processes the key again for each message, and releases the interpreter's lock
    even for short input. The relay's other thread then takes the lock, and the attempt waits for it. A plain hash
    releases the lock only for long input.

    Source: https://www.rfc-editor.org/rfc/rfc2104#section-2
    """

    def __init__(self, key: bytes) -> None:
        if len(key) > BLOCK_BYTES:
            key = sha256(key).digest()
        block = key.ljust(BLOCK_BYTES, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, content: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(content)
        outer.update(inner.digest())
        return outer.digest()


def signature(keys: Sequence[Key], message_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    """Return the ``webhook-signature`` of a message: one signature for each key, so keys can be rotated.

    Args:
        keys: The keys, the current one first.
        message_id: The ``webhook-id``.
        timestamp: The ``webhook-timestamp``, in seconds since 1970.
        body: The exact bytes that are sent.
    """
    content = b".".join((message_id, timestamp, body))
    return b" ".join([b"v1," + b2a_base64(key.digest(content), newline=False) for key in keys])
