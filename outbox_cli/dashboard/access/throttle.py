"""Limit guesses: after five wrong tokens a client waits, longer after each further one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

FREE = 5  # wrong tokens without a wait
LONGEST_S = 60.0
CLIENTS = 1000  # clients in memory at once
FORGIVEN_AFTER_S = 900.0


@dataclass
class _Tries:
    count: int = 0
    until: float = 0.0
    last_at: float = 0.0


class Throttle:
    """Counts wrong tokens by client.

    Args:
        clock: Returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._clients: OrderedDict[str, _Tries] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Return the time until this client may try again, in seconds; 0: now."""
        tries = self._clients.get(client)
        return max(tries.until - self._clock(), 0.0) if tries else 0.0

    def failed(self, client: str) -> None:
        """Count a wrong token."""
        now = self._clock()
        tries = self._clients.pop(client, None) or _Tries()
        if now - tries.last_at > FORGIVEN_AFTER_S:
            tries = _Tries()
        tries.count, tries.last_at = tries.count + 1, now
        if tries.count >= FREE:
            tries.until = now + min(2.0 ** (tries.count - FREE), LONGEST_S)
        self._clients[client] = tries
        while len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)

    def succeeded(self, client: str) -> None:
        """Forget earlier wrong tokens."""
        self._clients.pop(client, None)
