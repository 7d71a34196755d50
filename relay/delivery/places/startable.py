"""Entries that may be sent now, and which of them is next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from relay.seam import Entry

AGAIN_EVERY = 12  # one attempt in 12 is at what failed before, while there is something that was not tried


class Startable:
    """The entries of one destination that may be sent: heads of their ordering keys, or without a key.

    Attributes:
        fresh: Those that were not tried yet.
        again: Those that failed before.
    """

    def __init__(self) -> None:
        self.fresh: deque[Entry] = deque()
        self.again: deque[Entry] = deque()
        self._turn = 0

    def __len__(self) -> int:
        return len(self.fresh) + len(self.again)

    def __iter__(self) -> Iterator[Entry]:
        return chain(self.fresh, self.again)

    def add(self, entry: Entry) -> None:
        """Add an entry; what was charged before is likely to fail again, and many fall due at once."""
        (self.again if entry.attempts else self.fresh).append(entry)

    def take(self, *, newest: bool = False) -> Entry | None:
        """Take the next entry.

        What failed before is taken once in a while, and when there is nothing else: so a group of bad messages never
        makes up all of what is under way while there are others.

        Args:
            newest: Whether to take the newest of what was not tried yet, if there is any.
        """
        if newest and self.fresh:
            return self.fresh.pop()
        queue = self._next_queue()
        return queue.popleft() if queue else None

    def take_if(self, may_follow: Callable[[Entry], bool]) -> Entry | None:
        """Take one more entry, if it may follow those that were taken."""
        queue = self.fresh or self.again
        return queue.popleft() if queue and may_follow(queue[0]) else None

    def remove(self, gone: set[Entry]) -> None:
        """Remove entries that leave."""
        self.fresh = deque(e for e in self.fresh if e not in gone)
        self.again = deque(e for e in self.again if e not in gone)

    def ends(self, count: int) -> set[Entry]:
        """Return the oldest and the newest of each kind, `count` of it together."""
        oldest, newest = count // 2, count - count // 2
        fresh, again = list(self.fresh), list(self.again)
        return {*fresh[:oldest], *fresh[-newest:], *again[:oldest], *again[-newest:]}

    def _next_queue(self) -> deque[Entry]:
        self._turn += 1
        if not self.fresh or (self.again and self._turn % AGAIN_EVERY == 0):
            return self.again
        return self.fresh
