"""A message in the relay's memory: read, and not settled yet."""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import Any, Protocol

from outbox import Message
from outbox.message import parse_instant
from relay.databases.store.rows import (
    ATTEMPTS,
    CREATED_AT,
    DATA,
    DELIVERY_GENERATION,
    DESTINATION,
    DUE_AT,
    EXPIRES_AT,
    FAILING_FOR_S,
    GENERATION,
    HEADERS,
    ID,
    ORDERING_KEY,
    POSITION,
    SHARD,
    SOURCE,
    SUBJECT,
    TYPE,
    Row,
)
from relay.decide.verdict import DELIVERED, Verdict

Handle = str | tuple[str, str]  # the message; for an entry about one delivery: the message and the destination


class Route(Protocol):
    """A destination of an entry, by its name."""

    @property
    def name(self) -> str: ...


class Guard(Protocol):
    """Gives permits for entries that may have killed a relay (see `relay.delivery.crashes.guard`)."""

    async def permit(self, destination: str, entry: Entry) -> bool: ...

    def survived(self, destination: str, entry: Entry) -> None: ...

    def forget(self, entry: Entry) -> None: ...


class Entry:
    """One message that was read and is not settled: for all its destinations, or for one delivery.

    A plain entry comes from ``outbox_message`` and goes to every subscribed destination; when all of them have taken
    it, it moves to the history with its batch. An entry with a ``destination`` is about that one delivery: it comes
    from ``outbox_delivery``, or it is the rest of a plain entry whose other destinations were settled without it.

    Attributes:
        handle: Its key in memory.
        guard: Asked for a permit before the entry is sent, if the entry may have killed a relay; else ``None``.
        is_plain: Whether every destination that has decided took it at the first attempt, and settling it releases no
            delivery of its key that waits in the table. It is an attribute, not a property, because it is read twice
            for each message.
        alone: Whether it is sent alone, because a batch that contained it was not taken.
        waited_a_beat: Whether some of its destinations have decided and others have not for a beat.
    """

    __slots__ = (
        "alone", "attempts", "destination", "epoch", "failing_for_s", "generation", "guard",
        "handle", "id", "is_plain", "key", "lanes", "open", "position", "row", "verdicts", "waited_a_beat",
    )  # fmt: skip

    def __init__(self, row: Row, lanes: tuple[Any, ...], epoch: int) -> None:
        self.row = row
        self.id: str = row[ID]
        self.position: int = row[POSITION]
        self.generation: int = row[GENERATION]
        self.key: str | None = row[ORDERING_KEY]
        self.handle: Handle = self.id
        self.lanes = lanes
        self.epoch = epoch
        self.open = len(lanes)
        self.verdicts: dict[str, Verdict] | None = None
        self.destination: str | None = None
        self.attempts = 0
        self.failing_for_s = 0.0
        self.guard: Guard | None = None
        self.alone = False
        self.waited_a_beat = False
        self.is_plain = True

    @classmethod
    def of_delivery(cls, row: Row, lane: Route, epoch: int) -> Entry:
        """Return the entry of a row of ``outbox_delivery`` joined to its message (see `relay.databases.store.rows`)."""
        entry = cls(row, (lane,), epoch)
        entry.destination, entry.generation = row[DESTINATION], row[DELIVERY_GENERATION]
        entry.attempts, entry.failing_for_s = row[ATTEMPTS], row[FAILING_FOR_S]
        entry.handle = entry.id, entry.destination
        entry.is_plain = False
        return entry

    def rest_for(self, lane: Route) -> Entry:
        """Return a new entry for one destination of a plain entry; the other destinations are settled without it."""
        rest = Entry(self.row, (lane,), self.epoch)
        rest.destination, rest.generation = lane.name, 0
        rest.handle = rest.id, rest.destination
        rest.is_plain = False
        rest.guard, rest.alone = self.guard, self.alone
        return rest

    def new_message(self) -> Message:
        """Return the message for one attempt. Each attempt has its own message, because a listener may change it."""
        row = self.row
        return Message(
            self.id, row[TYPE], row[SOURCE], row[SUBJECT], self.key, row[DATA], row[HEADERS], row[CREATED_AT],
            self.attempts + 1,
        )  # fmt: skip

    @property
    def type(self) -> str:
        """The event type of its message."""
        type_: str = self.row[TYPE]
        return type_

    @property
    def created_at(self) -> datetime:
        """When its message was written, by the database's clock."""
        return parse_instant(self.row[CREATED_AT])

    @property
    def shard(self) -> int:
        """The slice of the messages that it belongs to."""
        shard: int = self.row[SHARD]
        return shard

    def expires_at_s(self, within_s: float | None) -> float:
        """Return when it expires, in seconds since 1970 by the database's clock; infinity if it never expires.

        A message that an operator sends again does not expire.

        Args:
            within_s: The age in seconds, since it was written or fell due, from which its destination does not want it
                any more.
        """
        if self.generation:
            return inf
        at = self.row[EXPIRES_AT]
        at_s = inf if at is None else parse_instant(at).timestamp()
        if within_s is None:
            return at_s
        due_at = self.row[DUE_AT]
        since = self.created_at if due_at is None else parse_instant(due_at)
        return min(at_s, since.timestamp() + within_s)

    @property
    def is_partly_decided(self) -> bool:
        """Whether some of its destinations have decided and others have not."""
        return 0 < self.open < len(self.lanes)

    def decide(self, destination: str, verdict: Verdict) -> bool:
        """Add one destination's verdict; return whether all destinations have decided."""
        if verdict is not DELIVERED:
            if self.verdicts is None:
                self.verdicts = {}
            self.verdicts[destination] = verdict
            self.is_plain = False
        self.open -= 1
        return self.open == 0

    def verdict_of(self, destination: str) -> Verdict:
        """Return the verdict of a destination that has decided."""
        return self.verdicts.get(destination, DELIVERED) if self.verdicts else DELIVERED
