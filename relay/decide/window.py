"""How many unsettled messages a relay holds: fewer while messages are large, so that it needs a bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

WINDOW_BYTES = 64 * 1024 * 1024  # the data of the messages in memory, about


class Window:
    """The most messages that may be held.

    Args:
        most: The number while messages are small.
        least: The number however large they are.
        page_bytes: The most data of messages that are read at once, in bytes.

    Attributes:
        size: The number now.
    """

    def __init__(self, most: int, *, least: int, page_bytes: int) -> None:
        self.size = self._most = max(most, least)
        self._least = least
        self._few = self._most * page_bytes // WINDOW_BYTES  # in a page of more, messages are small on average
        self._mean_bytes = 0.0  # of the messages that are held, about

    def fit(self, sizes: Iterable[int], count: int, held: int) -> bool:
        """Note messages that were read; return whether the size changed.

        Args:
            sizes: The bytes of the data of each.
            count: How many these are.
            held: How many messages were held before.
        """
        before = self.size
        bytes_ = sum(sizes) if count < self._few else 0
        self._mean_bytes += (bytes_ - count * self._mean_bytes) / max(count + held, 1)
        self.size = max(min(self._most, int(WINDOW_BYTES / max(self._mean_bytes, 1))), self._least)
        return self.size != before
