"""Fingerprints: equal for failures of one cause."""

from __future__ import annotations

import re
from hashlib import blake2s


def fingerprint(reason: str | None) -> str | None:
    """Equal for failures of one cause: the reason without what varies (numbers, ids, quoted values)."""
    if reason is None:
        return None
    plain = re.sub(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|0x[0-9a-fA-F]+|\d+|'[^']*'|\"[^\"]*\"", "?", reason)
    return blake2s(plain.encode(), digest_size=6).hexdigest()
