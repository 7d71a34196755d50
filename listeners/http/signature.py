"""Check Standard Webhooks signatures.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers

TOLERANCE_S = 300
NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Verifier:
    """Checks the signature of a call.

    Args:
        keys: The keys of signatures: the current one, and the previous one during rotation.
        required: Whether a call without a signature fails the check.
    """

    def __init__(self, keys: Iterable[bytes], *, required: bool = False) -> None:
        self._keys = list(keys)
        self._required = required

    def problem(self, headers: Headers, body: bytes, now: float) -> str | None:
        """Return a word for the fault of a signature; ``None`` if there is none."""
        values = [headers.getlist(name) for name in NAMES]
        if not values[2] and not self._required:
            return None
        if any(len(found) != 1 for found in values):
            return "signature_incomplete"
        id_, timestamp, given = (found[0] for found in values)
        if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
            return "timestamp_malformed"
        if abs(now - int(timestamp)) > TOLERANCE_S:
            return "timestamp_stale"
        content = f"{id_}.{timestamp}.".encode("latin-1") + body
        return None if self._fits(content, given) else "signature_wrong"

    def _fits(self, content: bytes, given: str) -> bool:
        """Return whether a signature fits a key. Every pair is compared, to take a constant time."""
        fits = False
        signatures = [_decoded(each.removeprefix("v1,")) for each in given.split(" ")[:8] if each.startswith("v1,")]
        for key in self._keys:
            right = hmac.digest(key, content, "sha256")
            for signature in signatures:
                fits |= hmac.compare_digest(right, signature)
        return fits


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
