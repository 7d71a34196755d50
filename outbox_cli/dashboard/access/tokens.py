"""The tokens of the dashboard, stored as digests and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Literal

Role = Literal["viewer", "operator"]
SHORTEST = 16  # characters: a shorter token can be guessed


class Tokens:
    """The tokens of the two roles.

    Args:
        operator: The token that permits changes, if changes are allowed; ``None``: there is none.
        viewer: The token that only permits viewing; ``None``: there is none.
    """

    def __init__(self, *, operator: str | None = None, viewer: str | None = None) -> None:
        given: dict[Role, str | None] = {"operator": operator, "viewer": viewer}
        self._digests: dict[Role, bytes] = {role: _digest(token) for role, token in given.items() if token}

    def role_of(self, token: str) -> Role | None:
        """Return the role of a token, or ``None``. Every known token is compared."""
        asked, found = _digest(token), None
        for role, digest in self._digests.items():
            if hmac.compare_digest(asked, digest):
                found = role
        return found


def new_token() -> str:
    """Return a token that cannot be guessed: 192 random bits."""
    return secrets.token_urlsafe(24)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
