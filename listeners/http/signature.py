"""Check Standard Webhooks signatures.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers

from relay.destinations.http.signing import Key, signature

TOLERANCE_S = 300
MOST = 8  # the most signatures of one call that are compared
NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Verifier:
    """Checks the signature of a call.

    Args:
        keys: The keys of signatures: the current one, and the previous one during rotation.
        required: Whether a call without a signature fails the check.
    """

    def __init__(self, keys: Iterable[bytes], *, required: bool = False) -> None:
        self._keys = [Key(each) for each in keys]
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
        fits = False
        for right in signature(self._keys, id_.encode("latin-1"), timestamp.encode(), body).split(b" "):
            for each in given.encode("latin-1").split(b" ")[:MOST]:  # every pair, to take a constant time
                fits |= hmac.compare_digest(right, each)
        return None if fits else "signature_wrong"
