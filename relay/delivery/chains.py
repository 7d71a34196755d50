"""The entries of each ordering key in memory, and the count of entries that have a separate room.

One entry of each key is the **head**: it may be sent, is being sent, or is a suspect. Its **successors** wait behind
it. `Chains` holds them, and `relay.delivery.queue` decides about them. An entry that failed once, and the entries
chained behind it, are **set back**: `SetBack` counts them. `HeldKeys` knows the entries that were set aside.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from relay.seam import Entry


@dataclass(slots=True)
class Chain:
    """The entries of one ordering key.

    Args:
        head: The entry that may be sent, is being sent, or is a suspect.
        successors: The entries behind it, in their order.
    """

    head: Entry
    successors: deque[Entry] = field(default_factory=deque)

    @property
    def tail(self) -> Entry:
        """The last entry."""
        return self.successors[-1] if self.successors else self.head


class Chains:
    """The chains of one destination, by key. An entry without a key has no chain, and is a head."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}

    def __contains__(self, key: str | None) -> bool:
        return key in self._chains

    def __iter__(self) -> Iterator[Chain]:
        return iter(self._chains.values())

    def of(self, key: str | None) -> Chain | None:
        """The chain of a key, if an entry of it is in memory."""
        return self._chains.get(key) if key is not None else None

    def successors(self) -> Iterator[Entry]:
        """Every entry that waits behind a head."""
        for chain in self._chains.values():
            yield from chain.successors

    def group(self, head: Entry) -> list[Entry]:
        """An entry and the entries chained behind it."""
        return [head, *self._chains[head.key].successors] if head.key is not None else [head]

    def join(self, entry: Entry) -> Entry | None:
        """Put an entry at the end of the chain of its key; return the head that it waits behind, if there is one."""
        if entry.key is None:
            return None
        chain = self._chains.get(entry.key)
        if chain is None:
            self._chains[entry.key] = Chain(entry)
            return None
        chain.successors.append(entry)
        return chain.head

    def join_all(self, entries: Sequence[Entry], longest: int) -> tuple[list[Entry], list[Entry]]:
        """Put entries at the ends of their keys' chains; return those that wait behind none, and those left out.

        An entry is left out if its key has this number of successors.
        """
        chains, heads, rest = self._chains, list[Entry](), list[Entry]()
        for entry in entries:
            if entry.key is None:
                heads.append(entry)
            elif (chain := chains.get(entry.key)) is None:
                chains[entry.key] = Chain(entry)
                heads.append(entry)
            elif len(chain.successors) < longest:
                chain.successors.append(entry)
            else:
                rest.append(entry)
        return heads, rest

    def advance(self, key: str) -> Entry | None:
        """Remove the head of a chain; return the next head, unless the chain ends."""
        chain = self._chains[key]
        if not chain.successors:
            del self._chains[key]
            return None
        chain.head = chain.successors.popleft()
        return chain.head

    def end(self, key: str) -> deque[Entry]:
        """End a chain; return its successors."""
        return self._chains.pop(key).successors

    def cut(self, head: Entry) -> deque[Entry]:
        """Remove the successors of a head, and return them."""
        if head.key is None:
            return deque()
        chain = self._chains[head.key]
        cut, chain.successors = chain.successors, deque()
        return cut

    def remove(self, gone: set[Entry]) -> list[Entry]:
        """Remove entries from their chains; return the new heads that replace removed ones.

        A chain continues while it has an entry.
        """
        heads = []
        for key in {e.key for e in gone if e.key is not None}:
            chain = self._chains[key]
            chain.successors = deque(e for e in chain.successors if e not in gone)
            if chain.head in gone and (head := self.advance(key)) is not None:
                heads.append(head)
        return heads

    def replace(self, entry: Entry, other: Entry) -> None:
        """Replace `entry` by `other`, if it is a head."""
        chain = self.of(entry.key)
        if chain is not None and chain.head is entry:
            chain.head = other


class SetBack:
    """Counts the entries that failed once and those chained behind them, which have a separate, bounded room.

    Args:
        chains: The chains of the destination.
        limit: The most entries in this room.

    Attributes:
        count: Entries in this room now.
    """

    def __init__(self, chains: Chains, limit: int) -> None:
        self._chains = chains
        self.limit = limit
        self.count = 0
        self._entries: set[Entry] = set()

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for more."""
        return self.count >= self.limit

    def add(self, *entries: Entry) -> None:
        """Count these entries in this room."""
        self._entries.update(entries)
        self.count = len(self._entries)

    def remove(self, *entries: Entry) -> None:
        """Remove these entries from this room."""
        self._entries.difference_update(entries)
        self.count = len(self._entries)

    def add_group(self, head: Entry) -> None:
        """Count an entry, and those chained behind it, in this room."""
        self.add(*self._chains.group(head))

    def remove_group(self, head: Entry) -> None:
        """Remove an entry, and those chained behind it, from this room."""
        if self.count:
            self.remove(*self._chains.group(head))


class HeldKeys:
    """The keys of which an entry was set aside and is not settled yet, with the positions of such entries.

    Until such an entry is settled, the table does not show it, but later entries of its key must wait behind it.
    *Earlier* entries must not wait: two pages with one key may be on their way at once, and entries of the later page
    would reject those of the earlier page repeatedly.
    """

    def __init__(self) -> None:
        self._lowest: dict[str, list[int]] = {}  # a heap, from which positions are removed later
        self._present: dict[str, Counter[int]] = {}

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

    def __bool__(self) -> bool:
        return bool(self._lowest)

    def is_before(self, key: str, position: int) -> bool:
        """Whether an earlier entry of this key was set aside."""
        heap = self._lowest.get(key)
        return heap is not None and heap[0] < position
