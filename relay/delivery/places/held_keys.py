"""The keys of which an entry was set aside and is not settled yet.

Until that entry is settled, the table does not show it, but later entries of its key must wait behind it. *Earlier*
entries must not: two pages with one key may be on their way at once, and the later one would reject the earlier one
repeatedly.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush


class HeldKeys:
    """The positions of entries that were set aside, by key."""

    def __init__(self) -> None:
        self._lowest: dict[str, list[int]] = {}  # a heap, from which positions are removed later
        self._present: dict[str, Counter[int]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._present

    def __len__(self) -> int:
        return len(self._present)

    def add(self, key: str, position: int) -> None:
        """Note that this entry was set aside."""
        heappush(self._lowest.setdefault(key, []), position)
        self._present.setdefault(key, Counter())[position] += 1

    def remove(self, key: str, position: int) -> None:
        """Note that this entry is settled: the table shows it."""
        present, heap = self._present[key], self._lowest[key]
        present[position] -= 1
        if not present[position]:
            del present[position]
        while heap and heap[0] not in present:
            heappop(heap)
        if not present:
            del self._present[key], self._lowest[key]

    def is_before(self, key: str, position: int) -> bool:
        """Whether an earlier entry of this key was set aside."""
        heap = self._lowest.get(key)
        return heap is not None and heap[0] < position
