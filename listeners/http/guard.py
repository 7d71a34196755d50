"""Access checks of a receiver: the secret, and a limit to what is logged about refused callers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from outbox.errors import SettingsError
from relay.serving.rate import Rate

SHORTEST_SECRET = 32


class Guard:
    """Compares secrets in a time that reveals nothing about them.

    Digests have the same length, so the time does not show the length of a secret. Every active secret is compared each
    time.

    Args:
        secrets: The accepted values of ``X-Internal-Secret``: the current secret, and the previous one during rotation.
        allow_weak: Accept secrets of less than 32 characters.

    Raises:
        SettingsError: There is no secret, or a secret is weak.
    """

    def __init__(self, secrets: Iterable[str], *, allow_weak: bool = False) -> None:
        known = list(secrets)
        if not known or not all(known):
            raise SettingsError(
                "the receiver needs a secret: set INTERNAL_API_SECRET to the output of `openssl rand -hex 32`, here "
                "and where the messages come from"
            )
        if not allow_weak and any(len(secret) < SHORTEST_SECRET for secret in known):
            raise SettingsError(
                f"the receiver's secret is shorter than {SHORTEST_SECRET} characters and can be guessed: use the "
                "output of `openssl rand -hex 32`, or allow it with --allow-weak-secret (allow_weak_secret = true)"
            )
        self._digests = [_digest(secret.encode()) for secret in known]

    def admits(self, given: Sequence[bytes]) -> bool:
        """Return whether the header occurs once and holds an active secret."""
        digest = _digest(given[0] if given else b"")
        fits = False
        for known in self._digests:
            fits |= hmac.compare_digest(digest, known)
        return fits and len(given) == 1


class LogRate:
    """Limits the log lines about refused callers to a rate that a log can hold, for each client and for all."""

    def __init__(self) -> None:
        self._client, self._all = Rate(1.0, 20), Rate(20.0, 200)
        self._left_out = 0

    def permit(self, client: str, now: float) -> bool:
        """Count a line; return ``False`` if it must be left out."""
        is_permitted = not self._client.take(client, now) and not self._all.take("", now)
        self._left_out += not is_permitted
        return is_permitted

    def left_out(self) -> dict[str, int]:
        """Return the count of lines left out since the last call, as a field of a log line; empty if it is zero."""
        count, self._left_out = self._left_out, 0
        return {"not_logged": count} if count else {}


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
