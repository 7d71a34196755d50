"""A model of the tables, and what an owning session asks of them: a few dictionaries instead of a database.

It implements `relay.databases.store.contract` in the plainest way; the contract suite (tests/contract/store) checks
that both databases do the same. A message has a position from the moment it is written, and is visible from the moment
its transaction commits, in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from outbox.tables import SHARD_COUNT
from relay.decide.shared_state import SharedState

DONE = ("delivered", "discarded", "expired")


@dataclass
class Message:
    """A row of ``outbox_message``."""

    id: str
    number: int
    position: int
    shard: int
    type: str
    key: str | None
    created_at: float
    state: str = "ready"
    due_at: float = 0.0
    expires_at: float | None = None
    generation: int = 0
    tx: int = 0  # when it became visible, or was put back


@dataclass
class Delivery:
    """A row of ``outbox_delivery``."""

    message: Message
    destination: str
    state: str
    generation: int = 0
    attempts: int = 0
    due_at: float = 0.0
    first_failed_at: float | None = None
    changed_at: float = 0.0
    tx: int = 0
    by: Any = None  # the session that wrote it; None for an operator


@dataclass
class Destination:
    """A row of ``outbox_destination``."""

    name: str
    skips: bool
    state: str = "healthy"
    paused_by: str | None = None
    reason: str | None = None
    until: float | None = None
    pauses: int = 0
    changed_at: float = 0.0
    disputed_at: float = -1e9
    resumed_at: float | None = None
    arrival_s: float = 0.0  # the used part of its rate limit's budget, as a row of ``outbox_rate`` stores it


@dataclass
class Shard:
    """A row of ``outbox_shard``, and who holds its lock."""

    holder: Any = None
    dirty: bool = False
    owner: str | None = None
    started: str | None = None


@dataclass
class Tables:
    """Everything that outlives a relay.

    Args:
        clock: The database's time.
        wants: Destination → whether it wants messages of a type.
    """

    clock: Callable[[], float]
    wants: Callable[[str, str], bool]
    messages: dict[str, Message] = field(default_factory=dict)
    deliveries: dict[tuple[str, str], Delivery] = field(default_factory=dict)
    history: set[str] = field(default_factory=set)
    destinations: dict[str, Destination] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=lambda: [Shard() for _ in range(SHARD_COUNT)])
    passed: set[tuple[str, str]] = field(default_factory=set)  # dead or discarded: successors may have been sent
    wants_of: dict[int, int] = field(default_factory=dict)  # living session → shards it asks for
    positions: int = 0
    tx: int = 0
    sessions: int = 0

    def next_position(self) -> int:
        self.positions += 1
        return self.positions

    def commit(self) -> int:
        """Make a transaction visible; return its number."""
        self.tx += 1
        return self.tx

    # ------------------------------------------------------------- questions

    def of_message(self, message_id: str) -> list[Delivery]:
        return [d for (id_, _), d in self.deliveries.items() if id_ == message_id]

    def of_key(self, destination: str, key: str | None) -> list[Delivery]:
        found = [d for d in self.deliveries.values() if d.destination == destination and d.message.key == key]
        return sorted(found, key=lambda d: d.message.position)

    def holds_up(self, delivery: Delivery) -> bool:
        """Return whether the successors in its key must wait for it."""
        is_skipped = delivery.state == "dead" and self.destinations[delivery.destination].skips
        return delivery.state not in DONE and not is_skipped

    def is_done(self, message: Message, destination: str) -> bool:
        """Return whether it is done there, as far as the tables know."""
        if message.id not in self.messages:
            return True
        delivery = self.deliveries.get((message.id, destination))
        return delivery is not None and not self.holds_up(delivery)

    def shared_state(self, name: str) -> SharedState:
        d, now = self.destinations[name], self.clock()
        wait_s = None if d.until is None else d.until - now
        resumed_at = None if d.resumed_at is None else str(d.resumed_at)
        return SharedState(d.state, d.paused_by, d.reason, wait_s, d.pauses, now - d.changed_at, resumed_at)

    # -------------------------------------------------------------- changes

    def finish(self, ids: set[str]) -> None:
        """Move messages with nothing left to do to the history."""
        for id_ in sorted(ids & self.messages.keys()):
            deliveries = self.of_message(id_)
            if self.messages[id_].state == "held" and all(d.state in DONE for d in deliveries):
                self.history.add(id_)
                del self.messages[id_]
                for d in deliveries:
                    del self.deliveries[id_, d.destination]

    def release(self, keys: list[tuple[str, str | None]], by: Any) -> list[tuple[str, int, int]]:
        """Park what is blocked in these keys, where no other delivery holds it up."""
        parked = []
        for destination, key in keys:
            rows = self.of_key(destination, key)
            if key is None or any(self.holds_up(d) and d.state != "blocked" for d in rows):
                continue
            for d in [d for d in rows if d.state == "blocked"]:
                self.change(d, "parked", by)
                parked.append((destination, d.message.shard, d.message.position))
        return parked

    def _may_expire(self, delivery: Delivery) -> bool:
        at = delivery.message.expires_at
        return at is not None and at <= self.clock() and not delivery.generation

    def change(self, delivery: Delivery, state: str, by: Any) -> None:
        if state == "expired" and not self._may_expire(delivery):
            raise AssertionError(f"{delivery.message.id} expired before its time at {delivery.destination}")
        delivery.state, delivery.by = state, by
        if not self.holds_up(delivery):
            self.passed.add((delivery.message.id, delivery.destination))
        delivery.changed_at, delivery.tx = self.clock(), self.commit()
