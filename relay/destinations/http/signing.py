"""Standard Webhooks signatures: who sent this, when, and exactly these bytes.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import sha256

BLOCK_BYTES = 64


class Key:
    """HMAC-SHA-256 with a key that was taken in once and for all.

    The standard library's `hmac.digest` takes the key in again for each message, and lets go of the interpreter's lock
    meanwhile, however short that is: the relay's other thread takes it, and the attempt waits for it. A plain hash does
    that for long input only.

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
    """The ``webhook-signature`` of a message: one signature for each key, so that keys can be rotated.

    Args:
        keys: The keys, the current one first.
        message_id: The ``webhook-id``.
        timestamp: The ``webhook-timestamp``: seconds since 1970.
        body: Exactly the bytes that go over the wire.
    """
    content = b".".join((message_id, timestamp, body))
    return b" ".join([b"v1," + b2a_base64(key.digest(content), newline=False) for key in keys])
