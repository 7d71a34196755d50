"""The interface between the relay and a database.

A `Store` opens a `Session`; the session is the lease. It owns shards, reads their ready messages and settles them, all
from one thread. When the session is lost, every method raises `Lost`, and the session owns no shard any more.
`relay.store.rows` has the form of the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from relay.decide.rate import Rate
from relay.decide.shared_state import Finding, SharedState
from relay.store.rows import Cursors, Page, Pair, Parked, Row

RELEASE_COUNT = 500  # blocked deliveries of one key that are released at once
DISCARD_COUNT = 500  # discarded deliveries that are finished at once
SETTLED_S = 10  # a delivery that was blocked for longer and has no predecessor in the table is released
LOG_LENGTH = 20  # attempts in the log of a delivery
ANY_GENERATION = 2**31 - 1
ON_A_STANDBY = "this database is a standby: it grants locks that mean nothing, so nothing is owned here"


class Lost(Exception):
    """The session has ended, and with it the ownership of its shards. This is an expected event."""


class Full(Lost):
    """The database has no room for the rows to be written: wait until it has."""


class Damaged(Exception):
    """A row can neither be read nor changed: its bytes on the disk are not those that were written."""


class Standby(Lost):
    """This database, or another session's lock on it, allows no owner here now: wait and look again."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """One delivery's verdict, on its way into the database."""

    message_id: str
    destination: str
    state: str
    generation: int
    attempts: int
    delay_s: float
    reason: str | None
    log: dict[str, Any] | None
    behind_memory: bool = False
    is_keyed: bool = True  # it may have an ordering key
    is_unknown: bool = False  # the verdict of a former owner: written only if there is no later one


@dataclass(frozen=True, slots=True)
class Batch:
    """Verdicts that are settled together, in one transaction.

    Args:
        messages: (id, generation) of messages that were read from ``outbox_message`` and have all their verdicts here.
        ruled: The verdicts on these messages, and on deliveries that were read back from ``outbox_delivery``.
        skipping: The destinations whose dead letters do not hold their successors up.
    """

    messages: Sequence[tuple[str, int]]
    ruled: Sequence[Ruled]
    skipping: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of scanning one slice of the deliveries.

    Args:
        next_at: The beginning of the next slice; ``None`` if this one was the last.
        parked: The deliveries that were blocked without an open predecessor, and are parked now.
        discarded: (message, destination) pairs that only have to be finished.
        holds_keys: Whether any delivery holds its ordering key.
    """

    next_at: int | None
    parked: Sequence[Parked] = ()
    discarded: Sequence[tuple[str, str]] = ()
    holds_keys: bool = False


@dataclass(frozen=True, slots=True)
class Peers:
    """The other relays at a beat, by the database's own lock table and clock.

    Args:
        me: The number of this relay.
        wants_of: Live relay → how many shards it asks for.
        held: The shards that have an owner, including those of this relay.
        generation: The generation of the registered destinations.
        shared_states: Destination → the shared knowledge about it.
        ended: Relays (by id) whose sessions were ended because they had stopped beating.
        schema: The version of the schema, and the oldest release that may use it.
        clock_s: The time by the database's clock, in seconds since 1970.
    """

    me: int
    wants_of: Mapping[int, int]
    held: frozenset[int]
    generation: int
    shared_states: Mapping[str, SharedState] = field(default_factory=dict)
    ended: Sequence[str] = ()
    schema: tuple[int, str] = (0, "0")
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Inherited:
    """The state in which the last owner left a shard.

    Args:
        shard: The shard.
        owner: Its last owner; ``None`` if that one handed it back.
        was_mine: Whether that was this process, in an earlier session.
        is_dirty: Whether another relay owned it, and did not hand it back.
        record: The content of ``started`` (see `relay.decide.crashes`).
        present: The messages of the record that are not settled.
        at: When this relay took it, by the database's clock.
    """

    shard: int
    owner: str | None
    was_mine: bool
    is_dirty: bool
    record: str | None
    present: frozenset[str]
    at: datetime


class Session(Protocol):
    """An owning session. It is not thread-safe: it belongs to the thread that opened it.

    Attributes:
        unreadable: Message → why it cannot be read. Its row is on the page, with a placeholder for its data; the reader
            removes both.
        given_up: (destination, state) → how many deliveries that operators gave up were finished, for the metrics.
    """

    unreadable: dict[str, str]
    given_up: Counter[tuple[str, str]]

    def server_age_s(self) -> float:
        """Return the seconds since the start of the server."""

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        """Show that this relay is alive; return the state of the others."""

    def take(self, shards: Sequence[int], skipping: Sequence[str]) -> list[int]:
        """Lock the free ones of these shards, and mark them dirty; return them.

        `sweep` finds deliveries that are blocked there without a predecessor.
        """

    def inherited(self) -> Sequence[Inherited]:
        """Return how the last owners left the shards of the last ``take``."""

    def note(self, records: Mapping[int, str | None]) -> None:
        """Write the accused deliveries and those under way of these shards, as far as this session owns them.

        The record survives this process; it need not survive the server.
        """

    def give(self, shards: Sequence[int]) -> None:
        """Hand shards back in order: mark them clean, then unlock them. Accused deliveries stay on record."""

    def read_ready(self, cursors: Cursors, limit: int, meanwhile: Callable[[], None] | None = None) -> Page:
        """Return the next ready messages, and those that became visible late.

        Args:
            cursors: The positions to continue from; this method moves them.
            limit: Messages at most, in addition to late ones.
            meanwhile: May be called when the answer has arrived and is not decoded yet: the database executes what it
                requests while the rows are decoded.
        """

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        """Return the next parked deliveries of these destinations, up to the cursors of the ready messages.

        All messages below these cursors are in memory, or in the table with a verdict. So the predecessors of such a
        delivery, or of one in a shard without ready messages, are known.
        """

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        """Return scheduled messages and retries that have fallen due since the last call."""

    def reread_due(self) -> None:
        """Read due messages and retries from the beginning again."""

    def held_keys(self, keys: Sequence[str], destinations: Sequence[str], skipping: Sequence[str]) -> dict[Pair, int]:
        """Return the (destination, key) pairs with an unfinished message in the table, and its lowest position."""

    def blocked_keys(self, pairs: Collection[Pair], skipping: Sequence[str]) -> dict[Pair, int]:
        """Return the (destination, key) pairs with a delivery that waits for more than room, and its lowest position.

        A delivery may be parked although an earlier one of its key waits for a retry: a relay that died had the earlier
            one in memory, and the next owner set it aside.
        """

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int], skipping: Sequence[str]) -> Swept:
        """Scan one slice of all deliveries, and release those that are blocked without a predecessor.

        That happens if the predecessor was in the memory of a former owner, or if a release missed the delivery. The
        first delivery of the key is parked; its end releases the next ones.

        Args:
            at: The beginning of the slice: 0, or `next_at` of the last one.
            shards: The shards to scan.
            fresh: The newly taken ones of them, where a delivery may just have lost its predecessor. Elsewhere a
                delivery that was blocked within the last `SETTLED_S` is skipped: its predecessor is likely to be in
                memory.
            skipping: The destinations whose dead letters do not hold their successors up.
        """

    def settle_plain(self, rows: Sequence[Row], *, durable: bool = True) -> int:
        """Move messages that every destination took to the history, as they were read; return their number.

        A message with a delivery that a former owner has set aside is left to ``settle``. With ``durable=False`` the
        call does not wait for the disk: the next durable one makes it durable, too.
        """

    def settle_plain_ahead(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        """Begin ``settle_plain`` without waiting; it is executed before the next statement of the session.

        Returns:
            A function that settles rows that have moved, waits until all are settled, and returns their number.
        """

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        """Settle exceptions, durably as in ``settle_plain``; return the deliveries that are parked now.

        Raises:
            Damaged: A row among them cannot be changed.
        """

    def discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        """Finish deliveries that an operator discarded or cancelled; return the deliveries that this released."""

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        """Set unrouted messages aside, unless other destinations have been registered meanwhile."""

    def report(self, finding: Finding) -> None:
        """Write a finding about a destination, for the other relays and for people.

        It never replaces an operator's pause. A pause is not declared twice, nor while peers dispute it.
        """

    def claim_probe(self, name: str) -> tuple[bool, SharedState]:
        """Claim the probe of a paused destination; return whether this relay makes it, and the shared state."""

    def claim_rate(self, name: str, want: int, rate: Rate) -> tuple[int, float]:
        """Claim attempts at a destination from the common rate budget, by the database's clock.

        Args:
            name: The destination.
            want: How many attempts could start.
            rate: Its limit.

        Returns:
            How many of them may start, and the seconds until one more may. See `relay.decide.rate`.
        """

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        """Sleep until notified, woken through ``wake_fd`` or timed out; return whether it was notified."""

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        """Return how long to sleep if there is nothing to do: the wanted time if writers notify, else a shorter one."""

    def awake(self) -> None:
        """Let writers skip the notification while the relay polls."""

    def close(self) -> None:
        """End the session; never raises."""


class Store(Protocol):
    """The database of the outbox."""

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> Session:
        """Connect, check the schema, and register as a living relay.

        After destinations of a later generation are registered, the session finds no message any more, and sets none
            aside as unrouted: it does not know these destinations.

        Raises:
            Lost: It cannot be reached now.
            Standby: It can be reached, but no session can own shards here now.
            Unusable: It can be reached, and cannot be used.
        """
