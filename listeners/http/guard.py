"""Who may call: whoever knows a secret, no more often than agreed."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from outbox.errors import SettingsError

SHORTEST_SECRET = 32
CLIENTS = 10_000  # whose rate is remembered; beyond that the one that was quiet for longest is forgotten


class Guard:
    """Compares secrets in a time that tells nothing about them.

    Digests have one length, so that not even that of a secret shows; every active secret is tried, whichever fits.

    Args:
        secrets: What ``X-Internal-Secret`` may be: the current one, and the previous one while rotating.
        allow_weak: Take secrets of less than 32 characters.

    Raises:
        SettingsError: There is no secret, or a weak one.
    """

    def __init__(self, secrets: Iterable[str], *, allow_weak: bool = False) -> None:
        known = list(secrets)
        if not known or not all(known):
            raise SettingsError(
                "the receiver needs a secret: set INTERNAL_API_SECRET, to what `openssl rand -hex 32` prints, here and "
                "where the messages come from"
            )
        if not allow_weak and any(len(secret) < SHORTEST_SECRET for secret in known):
            raise SettingsError(
                f"the receiver's secret is shorter than {SHORTEST_SECRET} characters and can be guessed: use what "
                "`openssl rand -hex 32` prints, or allow it with --allow-weak-secret (allow_weak_secret = true)"
            )
        self._digests = [_digest(secret.encode()) for secret in known]

    def admits(self, given: Sequence[bytes]) -> bool:
        """Whether these values of the header are one that fits."""
        digest = _digest(given[0] if given else b"")
        fits = False
        for known in self._digests:
            fits |= hmac.compare_digest(digest, known)
        return fits and len(given) == 1


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rate:
    """A token bucket for each client.

    Args:
        per_s: Calls a second in the long run.
        burst: Calls at once.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, client: str, now: float) -> int:
        """Count a call: 0 if it may go on, else the whole seconds until one may."""
        bucket = self._buckets.setdefault(client, _Bucket(self._burst, now))
        self._buckets.move_to_end(client)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(bucket.tokens + (now - bucket.at) * self._per_s, self._burst)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return math.ceil((1 - bucket.tokens) / self._per_s)


class Lines:
    """Permits log lines of refused strangers: they cause no more of them than a log can hold.

    Args:
        client: Lines of one client: a second in the long run, and at once.
        all_clients: Lines of all clients together, likewise.
    """

    def __init__(self, client: tuple[float, int] = (1.0, 20), all_clients: tuple[float, int] = (20.0, 200)) -> None:
        self._client, self._all = Rate(*client), Rate(*all_clients)
        self._left_out = 0

    def permit(self, client: str, now: float) -> bool:
        """Count a line; ``False`` if it is to be left out."""
        is_permitted = not self._client.take(client, now) and not self._all.take("", now)
        self._left_out += not is_permitted
        return is_permitted

    def left_out(self) -> dict[str, int]:
        """Return how many were left out since this was asked last, as a field of a log line; nothing for none."""
        count, self._left_out = self._left_out, 0
        return {"not_logged": count} if count else {}


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
