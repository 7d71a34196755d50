"""The entries of ordering keys that are in memory, key by key; and which entries have a room of their own.

Of each key, one entry is the **head**: it may be sent, is being sent, or is a suspect. Its **successors** wait behind
it. `Chains` knows them, and `relay.delivery.queue` decides what becomes of them.

What failed once, and what is chained behind it, is **set back**: `SetBack` counts it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.seam import Entry


@dataclass(slots=True)
class Chain:
    """The entries of one ordering key.

    Args:
        head: The one that may be sent, is being sent, or is a suspect.
        successors: Those behind it, in their order.
    """

    head: Entry
    successors: deque[Entry] = field(default_factory=deque)

    @property
    def tail(self) -> Entry:
        """The last one of it."""
        return self.successors[-1] if self.successors else self.head


class Chains:
    """The chains of one destination, by key. Entries without a key have none, and each is a head."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}

    def __contains__(self, key: str | None) -> bool:
        return key in self._chains

    def __iter__(self) -> Iterator[Chain]:
        return iter(self._chains.values())

    def of(self, key: str | None) -> Chain | None:
        """The chain of a key, if anything of it is in memory."""
        return self._chains.get(key) if key is not None else None

    def successors(self) -> Iterator[Entry]:
        """Every entry that waits behind a head."""
        for chain in self._chains.values():
            yield from chain.successors

    def group(self, head: Entry) -> list[Entry]:
        """An entry and what is chained behind it."""
        return [head, *self._chains[head.key].successors] if head.key is not None else [head]

    def join(self, entry: Entry) -> Entry | None:
        """Put an entry behind the others of its key; returns the head that it waits behind, if it waits."""
        if entry.key is None:
            return None
        chain = self._chains.get(entry.key)
        if chain is None:
            self._chains[entry.key] = Chain(entry)
            return None
        chain.successors.append(entry)
        return chain.head

    def advance(self, key: str) -> Entry | None:
        """Take the head off a chain; returns the next one, unless the chain ends."""
        chain = self._chains[key]
        if not chain.successors:
            del self._chains[key]
            return None
        chain.head = chain.successors.popleft()
        return chain.head

    def end(self, key: str) -> deque[Entry]:
        """End a chain; returns its successors."""
        return self._chains.pop(key).successors

    def cut(self, head: Entry) -> deque[Entry]:
        """Leave a head alone; returns what was behind it."""
        if head.key is None:
            return deque()
        chain = self._chains[head.key]
        cut, chain.successors = chain.successors, deque()
        return cut

    def remove(self, gone: set[Entry]) -> list[Entry]:
        """Take entries that leave out of their chains; returns those that are heads now, in place of heads that left.

        A chain lives on while anything of its key does.
        """
        heads = []
        for key in {e.key for e in gone if e.key is not None}:
            chain = self._chains[key]
            chain.successors = deque(e for e in chain.successors if e not in gone)
            if chain.head in gone and (head := self.advance(key)) is not None:
                heads.append(head)
        return heads

    def replace(self, entry: Entry, other: Entry) -> None:
        """Have `other` stand for `entry`, if that is a head."""
        chain = self.of(entry.key)
        if chain is not None and chain.head is entry:
            chain.head = other


class SetBack:
    """What failed once, and what is chained behind that: it has a bounded room of its own.

    Args:
        chains: What waits behind which entry.
        limit: How many entries there is room for.

    Attributes:
        count: How many there are.
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
        """Keep these out of the room of what was not tried."""
        self._entries.update(entries)
        self.count = len(self._entries)

    def remove(self, *entries: Entry) -> None:
        """Let these take that room again, or leave."""
        self._entries.difference_update(entries)
        self.count = len(self._entries)

    def add_group(self, head: Entry) -> None:
        """Keep an entry, and what is chained behind it, out of that room."""
        self.add(*self._chains.group(head))

    def remove_group(self, head: Entry) -> None:
        """Let an entry, and what is chained behind it, take that room again."""
        if self.count:
            self.remove(*self._chains.group(head))

    def replace(self, entry: Entry, other: Entry) -> None:
        """Have `other` stand for `entry`, if that is set back."""
        if entry in self._entries:
            self._entries.remove(entry)
            self._entries.add(other)
