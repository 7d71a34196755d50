"""Parse the keys of Standard Webhooks signatures: ``whsec_…``.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii

PREFIX = "whsec_"
SHORTEST_KEY = 24  # bytes, as the specification requires


def signing_key(text: str) -> bytes:
    """Return the key in a ``whsec_…`` text.

    Raises:
        ValueError: It is malformed. The message does not repeat the text, which is a secret.
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
