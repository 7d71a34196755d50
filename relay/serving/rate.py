"""Limit the rate of requests for each client."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

CLIENTS = 10_000  # the number of clients to remember; beyond it, the least recently seen client is forgotten


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rate:
    """A token bucket for each client.

    Args:
        per_s: Calls a second on average.
        burst: The number of calls that may come at once.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, client: str, now: float, *, count: bool = True) -> int:
        """Return 0 if a call is allowed, else the whole seconds until one is.

        Args:
            client: The client's key.
            now: The time, in seconds.
            count: Whether the call takes a token, if it is allowed.
        """
        bucket = self._buckets.setdefault(client, _Bucket(self._burst, now))
        self._buckets.move_to_end(client)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(bucket.tokens + (now - bucket.at) * self._per_s, self._burst)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= count
            return 0
        return math.ceil((1 - bucket.tokens) / self._per_s)
