"""The tokens that open the dashboard, compared in constant time and kept as digests only."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Literal

Role = Literal["viewer", "operator"]
SHORTEST = 16  # characters: what is shorter can be guessed


class Tokens:
    """The tokens of the two roles.

    Args:
        operator: Who holds it may change things, where changes are allowed; ``None``: it opens nothing.
        viewer: Who holds it may look, and nothing else.
    """

    def __init__(self, *, operator: str | None = None, viewer: str | None = None) -> None:
        given: dict[Role, str | None] = {"operator": operator, "viewer": viewer}
        self._digests: dict[Role, bytes] = {role: _digest(token) for role, token in given.items() if token}

    def role_of(self, token: str) -> Role | None:
        """Return the role that a token stands for, or ``None``. All tokens are compared, whichever fits."""
        asked, found = _digest(token), None
        for role, digest in self._digests.items():
            if hmac.compare_digest(asked, digest):
                found = role
        return found


def new_token() -> str:
    """Make a token that cannot be guessed: 192 random bits."""
    return secrets.token_urlsafe(24)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
