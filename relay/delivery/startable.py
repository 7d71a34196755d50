"""The entries that may be sent now, and the choice of the next one.

One attempt in N is a **turn** for an entry that failed before; all other attempts are for untried entries. A turn whose
attempt is taken halves N, and a turn whose attempt fails doubles it. So a flaky destination soon gets its retries, and
messages that always fail cost other messages little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from itertools import chain, islice

from relay.seam import Entry

OFTEN, SELDOM = 2, 32  # the limits of N, while untried entries wait
NEIGHBOURS = 500  # the most untried entries to search for one of another type


class Startable:
    """The entries of one destination that may be sent: heads of ordering keys, and entries without a key.

    Attributes:
        fresh: The untried entries.
        again: The entries that failed before.
        turns: The entries taken from `again` whose attempt has not ended.
    """

    def __init__(self) -> None:
        self.fresh: deque[Entry] = deque()
        self.again: deque[Entry] = deque()
        self.turns: set[Entry] = set()
        self._every = OFTEN
        self._since = 0  # attempts since the last turn
        self._is_turn = False

    def __len__(self) -> int:
        return len(self.fresh) + len(self.again)

    def __iter__(self) -> Iterator[Entry]:
        return chain(self.fresh, self.again)

    def add(self, entry: Entry) -> None:
        """Add an entry. A charged one goes to `again`: it is likely to fail again, and many fall due at once."""
        (self.again if entry.attempts else self.fresh).append(entry)

    def take(self, at: float | None = None, unlike: Collection[str] = ()) -> Entry | None:
        """Take the next entry.

        Args:
            at: From which place among the untried entries to take it, if there are any: 0 is the oldest, 1 the newest.
            unlike: Types of messages to avoid: a message of another type at that place, or not far behind it, is
                preferred.
        """
        self._is_turn = not self.fresh or (at is None and bool(self.again) and self._since + 1 >= self._every)
        if not self._is_turn:
            self._since += 1
            return self.fresh.popleft() if at is None else self._take_fresh(at, unlike)
        if not self.again:
            return None
        self._since = 0
        return self._take_again()

    def take_if(self, may_follow: Callable[[Entry], bool]) -> Entry | None:
        """Take one more entry, if it fits; a batch is either all untried or all entries that failed before."""
        queue = self.again if self._is_turn else self.fresh
        if not queue or not may_follow(queue[0]):
            return None
        return self._take_again() if self._is_turn else queue.popleft()

    def _take_fresh(self, at: float, unlike: Collection[str]) -> Entry:
        index = round(at * (len(self.fresh) - 1))
        here = enumerate(islice(self.fresh, index, index + NEIGHBOURS), index)
        index = next((i for i, entry in here if entry.type not in unlike), index)
        entry = self.fresh[index]
        del self.fresh[index]
        return entry

    def _take_again(self) -> Entry:
        entry = self.again.popleft()
        self.turns.add(entry)
        return entry

    def end_turn(self, entry: Entry, *, taken: bool | None = None) -> None:
        """Note whether the attempt at an entry was taken; ``None`` if the end of the attempt does not show that."""
        if entry not in self.turns:
            return
        self.turns.remove(entry)
        if taken is not None:
            self._every = max(self._every // 2, OFTEN) if taken else min(self._every * 2, SELDOM)

    def replace(self, entry: Entry, other: Entry) -> None:
        """Replace `entry` by `other`, if it has a turn."""
        if entry in self.turns:
            self.turns.remove(entry)
            self.turns.add(other)

    def remove(self, gone: set[Entry]) -> None:
        """Remove these entries."""
        self.fresh = deque(e for e in self.fresh if e not in gone)
        self.again = deque(e for e in self.again if e not in gone)

    def sample(self, count: int) -> set[Entry]:
        """Return `count` of the untried entries, spread evenly, and all entries that failed before."""
        return {*_spread(list(self.fresh), count), *self.again}


def _spread(entries: list[Entry], count: int) -> list[Entry]:
    if len(entries) <= count:
        return entries
    return [entries[len(entries) - 1 - i * (len(entries) - 1) // max(count - 1, 1)] for i in range(count)]
