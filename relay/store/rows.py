"""What is read from the database: rows with named columns, pages of them, and how far the reading has come.

A row stays the tuple that the driver made: an object for each would cost more than reading it. The names below are the
places in it, in the order in which both databases' statements select the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = tuple[Any, ...]
Pair = tuple[str, str]  # (destination, ordering key)
Parked = tuple[str, int, int]  # (destination, shard, position) of a delivery that is parked now

# `address` is where the row lay, if the store wants to know. Instants are texts, as the database prints them.
MESSAGE_COLUMNS = (
    "id", "position", "shard", "generation", "type", "source", "subject", "ordering_key", "data", "headers",
    "created_at", "address",
    "expires_at", "due_at",
)  # fmt: skip

ID, POSITION, SHARD, GENERATION, TYPE, SOURCE, SUBJECT, ORDERING_KEY, DATA, HEADERS = range(10)
CREATED_AT, ADDRESS, EXPIRES_AT, DUE_AT = range(10, 14)
# A delivery that is read back has the columns of its message, and then its own.
DESTINATION, DELIVERY_GENERATION, ATTEMPTS, FAILING_FOR_S = range(14, 18)

PAGE_BYTES = 1024 * 1024  # of data on one page
UNBOUNDED = 2**63 - 1


@dataclass(slots=True)
class Cursors:
    """How far the reading has come.

    Args:
        ready: Per owned shard, the position up to which ready messages were read.
        parked: Per (destination, shard) with parked deliveries, the position up to which they were read.
        exhausted: Owned shards in which a look has found nothing more that was ready.
    """

    ready: dict[int, int] = field(default_factory=dict)
    parked: dict[tuple[str, int], int] = field(default_factory=dict)
    exhausted: set[int] = field(default_factory=set)

    def go_back(self, shard: int, position: int) -> None:
        """Read the ready messages of this shard from this position on."""
        self.ready[shard] = min(self.ready[shard], position - 1)
        self.exhausted.discard(shard)

    def is_new(self, shard: int) -> bool:
        """Return whether no message of this shard was read yet."""
        return not self.ready[shard] and shard not in self.exhausted

    def parked_until(self, shard: int) -> int:
        """Return how far parked deliveries may be read: as far as ready messages were, and that may be all of them."""
        return UNBOUNDED if shard in self.exhausted else self.ready[shard]

    def lower(self, destination: str, shard: int, position: int) -> None:
        """Note that this delivery is parked now: read on from it, if it had been passed."""
        pair = destination, shard
        self.parked[pair] = min(self.parked.get(pair, 0), position - 1)


@dataclass(slots=True)
class Page:
    """What one look found.

    Args:
        messages: Messages to take up.
        deliveries: Deliveries to take up again.
        discarded: (message, destination) pairs that an operator discarded or cancelled.
        unparked: Destinations for which a session other than this one has parked something.
        held: (destination, ordering key) → the lowest position of a message in the table that is not done.
        blocked: (destination, ordering key) → the lowest position of a delivery in the table that may not start now.
        full: Whether there may be more where this came from.
    """

    messages: list[Row] = field(default_factory=list)
    deliveries: list[Row] = field(default_factory=list)
    discarded: list[tuple[str, str]] = field(default_factory=list)
    unparked: set[str] = field(default_factory=set)
    held: Mapping[Pair, int] = field(default_factory=dict)
    blocked: Mapping[Pair, int] = field(default_factory=dict)
    full: bool = False

    def __bool__(self) -> bool:
        return bool(self.messages or self.deliveries or self.discarded or self.unparked)


def until_large(rows: list[Row]) -> tuple[list[Row], set[int]]:
    """Return the rows of each shard before its first without data, and the shards that have such a row.

    A row without data belongs to a message that was too large for the page.
    """
    if all(row[DATA] for row in rows):
        return rows, set()
    taken, large = [], set()
    for row in rows:
        if row[DATA] is None:
            large.add(row[SHARD])
        if row[SHARD] not in large:
            taken.append(row)
    return taken, large
