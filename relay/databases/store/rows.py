"""Rows that are read from the database, with names for their columns; pages of rows; and the cursors.

A row is the tuple that the driver made, because an object for each row would cost more than reading it. The names below
are indices into it, in the order in which the statements of every database select the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = tuple[Any, ...]
Pair = tuple[str, str]  # (destination, ordering key)
Parked = tuple[str, int, int]  # (destination, shard, position) of a delivery that is parked now
Due = tuple[str, int, str]  # a position in the order of due times: (due_at, position, destination)

# `address` is the address of the row, if the store uses it, else null. Ids are text, and so are data and headers (the
# JSON as it was written), and instants, as the database prints them (in UTC if they have no offset).
MESSAGE_COLUMNS = (
    "id", "position", "shard", "generation", "type", "source", "subject", "ordering_key", "data", "headers",
    "created_at", "address",
    "expires_at", "due_at",
)  # fmt: skip

ID, POSITION, SHARD, GENERATION, TYPE, SOURCE, SUBJECT, ORDERING_KEY, DATA, HEADERS = range(10)
CREATED_AT, ADDRESS, EXPIRES_AT, DUE_AT = range(10, 14)
# A delivery that is read back has the columns of its message, followed by its own.
DESTINATION, DELIVERY_GENERATION, ATTEMPTS, FAILING_FOR_S = range(14, 18)

PAGE_BYTES = 1024 * 1024  # the data of one page
UNBOUNDED = 2**63 - 1


@dataclass(slots=True)
class Cursors:
    """The positions up to which a session has read.

    Args:
        ready: Per owned shard, the position up to which ready messages were read.
        parked: Per (destination, shard) with parked deliveries, the position up to which they were read.
        exhausted: Owned shards in which the last look found no more ready messages.
        passed: Per (destination, shard), the position before the lowest parked delivery that was tried without success.
            The cursor does not go back to this position for a while.
        ends: Per destination, a position after which no parked delivery was found.
    """

    ready: dict[int, int] = field(default_factory=dict)
    parked: dict[tuple[str, int], int] = field(default_factory=dict)
    exhausted: set[int] = field(default_factory=set)
    passed: dict[tuple[str, int], int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)

    def go_back(self, shard: int, position: int) -> None:
        """Set the position from which ready messages of this shard are read."""
        self.ready[shard] = min(self.ready[shard], position - 1)
        self.exhausted.discard(shard)

    def is_new(self, shard: int) -> bool:
        """Return whether no message of this shard was read yet."""
        return not self.ready[shard] and shard not in self.exhausted

    def parked_until(self, shard: int) -> int:
        """Return the position up to which parked deliveries may be read: that of the ready messages, or no limit."""
        return UNBOUNDED if shard in self.exhausted else self.ready[shard]

    def lower(self, destination: str, shard: int, position: int) -> None:
        """Note that this delivery is parked now: move the cursor back to it if necessary."""
        pair = destination, shard
        self.parked[pair] = min(self.parked.get(pair, 0), position - 1)
        self._extend(destination, position)

    def pass_by(self, destination: str, shard: int, position: int) -> None:
        """Note that this delivery was tried and is parked now: the cursor does not go back to it for a while."""
        pair = destination, shard
        self.passed[pair] = min(self.passed.get(pair, UNBOUNDED), position - 1)
        self._extend(destination, position)

    def turn_back(self, destination: str) -> None:
        """Move the cursors back to the deliveries that were skipped."""
        for pair in [pair for pair in self.passed if pair[0] == destination]:
            self.parked[pair] = min(self.parked.get(pair, 0), self.passed.pop(pair))

    @property
    def passing(self) -> set[str]:
        """The destinations of deliveries that were skipped."""
        return {destination for destination, _ in self.passed}

    def place(self, destination: str, share: float) -> int:
        """Return the position at this share of the way from the first parked delivery to the last one, or beyond it."""
        pairs = [*self.parked.items(), *self.passed.items()]
        first = min((at for (name, _), at in pairs if name == destination and at), default=0)
        return first + int(share * max(self.ends.get(destination, UNBOUNDED) - first, 0))

    def at(self, destination: str, position: int) -> Cursors:
        """Return cursors that read the parked deliveries of a destination after this position."""
        parked = {(destination, shard): position for shard in self.ready}
        return Cursors(self.ready, parked, self.exhausted)

    def everywhere(self) -> Cursors:
        """Return cursors that read all parked deliveries, including those beyond the ready messages that were read."""
        return Cursors(self.ready, exhausted=set(self.ready))

    def _extend(self, destination: str, position: int) -> None:
        if destination in self.ends:
            self.ends[destination] = max(self.ends[destination], position)


@dataclass(slots=True)
class Page:
    """The result of one look.

    Args:
        messages: New messages.
        deliveries: Deliveries that are read back.
        discarded: (message, destination) pairs that an operator discarded or cancelled.
        unparked: Destinations for which another session has parked deliveries.
        held: (destination, ordering key) → the lowest position of an unfinished message in the table.
        blocked: (destination, ordering key) → the lowest position of a delivery in the table that may not start now.
        full: Whether there may be more rows.
    """

    messages: list[Row] = field(default_factory=list)
    deliveries: list[Row] = field(default_factory=list)
    discarded: list[tuple[str, str]] = field(default_factory=list)
    unparked: set[str] = field(default_factory=set)
    held: Mapping[Pair, int] = field(default_factory=dict)
    blocked: Mapping[Pair, int] = field(default_factory=dict)
    full: bool = False

    @property
    def room_bytes(self) -> int:
        """The bytes of data for which there is still room."""
        return PAGE_BYTES - sum(len(row[DATA].encode()) for row in self.messages)

    def __bool__(self) -> bool:
        return bool(self.messages or self.deliveries or self.discarded or self.unparked)


def after(due: Due) -> dict[str, Any]:
    """Return the parameters of a statement that reads the rows that are due after this one."""
    return {"due": due[0], "position": due[1], "destination": due[2]}


def by_generation(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Return the rows by their generation; nearly always there is only one generation."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row[GENERATION], []).append(row)
    return found


def until_large(rows: list[Row]) -> tuple[list[Row], set[int]]:
    """Return the rows of each shard before its first row without data, and the shards that have such a row.

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
