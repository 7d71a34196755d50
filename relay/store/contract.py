"""What the relay asks of a database.

A `Store` opens a `Session`; the session is the lease. It owns shards, reads what is ready in them and settles it, all
from one thread. When the session is gone, every method raises `Lost`, and the session owns nothing any more. What is
read has its form in `relay.store.rows`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from relay.decide.rate import Rate
from relay.decide.standing import Finding, Standing
from relay.store.rows import Cursors, Page, Pair, Parked, Row

RELEASE_COUNT = 500  # blocked deliveries of one key that are let go at once
DISCARD_COUNT = 500  # discarded deliveries that are finished at once
SETTLED_S = 10  # a delivery that was blocked for longer, with nothing before it in the table, is released
LOG_LENGTH = 20  # attempts that a delivery remembers
ANY_GENERATION = 2**31 - 1
ON_A_STANDBY = "this database is a standby: it grants locks that mean nothing, so nothing is owned here"


class Lost(Exception):
    """The session is gone, and with it everything that it owned. This is expected to happen."""


class Full(Lost):
    """The database has no room for what is to be written: wait until it has."""


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
    is_unknown: bool = False  # a former owner cannot say: written only where no later verdict stands


@dataclass(frozen=True, slots=True)
class Batch:
    """Verdicts that are settled together, in one transaction.

    Args:
        messages: (id, generation) of messages read from ``outbox_message``, all of whose destinations are ruled on.
        ruled: The verdicts, on those and on deliveries that were read back from ``outbox_delivery``.
        skipping: The destinations whose dead letters do not hold their successors up.
    """

    messages: Sequence[tuple[str, int]]
    ruled: Sequence[Ruled]
    skipping: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found in one slice of the deliveries.

    Args:
        next_at: Where the next slice begins; ``None`` when this one was the last.
        parked: What was blocked although nothing before it was still to be done, and is parked now.
        discarded: (message, destination) pairs that only wait to be finished.
        holds_keys: Whether any delivery holds its ordering key.
    """

    next_at: int | None
    parked: Sequence[Parked] = ()
    discarded: Sequence[tuple[str, str]] = ()
    holds_keys: bool = False


@dataclass(frozen=True, slots=True)
class Peers:
    """What a beat shows of the other relays, by the database's own lock table and clock.

    Args:
        me: The number of this relay.
        wants_of: Living relay → how many shards it asks for.
        held: The shards that have an owner, those of this relay included.
        generation: The generation of the registered destinations.
        standings: Destination → what all relays know of it.
        ended: Relays (by id) whose sessions were ended because they had stopped beating.
        schema: The version of the schema, and the oldest release that may use it.
        clock_s: The time by the database's clock, in seconds since 1970.
    """

    me: int
    wants_of: Mapping[int, int]
    held: frozenset[int]
    generation: int
    standings: Mapping[str, Standing] = field(default_factory=dict)
    ended: Sequence[str] = ()
    schema: tuple[int, str] = (0, "0")
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the last owner of a shard left behind.

    Args:
        shard: The shard.
        owner: Its last owner; ``None`` when that one handed it back.
        was_mine: Whether that was this process, in an earlier session.
        is_dirty: Whether another relay owned it, and did not hand it back.
        record: What stands in ``started`` (see `relay.decide.crashes`).
        present: The messages named there that are still to be settled.
        at: When it was taken, by the database's clock.
    """

    shard: int
    owner: str | None
    was_mine: bool
    is_dirty: bool
    record: str | None
    present: frozenset[str]
    at: datetime


class Session(Protocol):
    """One owning session. Not thread-safe: it belongs to the thread that opened it.

    Attributes:
        unreadable: Message → why it cannot be read. Its row is on its page all the same, with a placeholder for its
            data; the reader takes both out.
        given_up: (destination, state) → deliveries that operators gave up and that are finished now, to be counted.
    """

    unreadable: dict[str, str]
    given_up: Counter[tuple[str, str]]

    def server_age_s(self) -> float:
        """Seconds since the server was started."""

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        """Show that this relay is alive; return what that shows of the others."""

    def take(self, shards: Sequence[int], skipping: Sequence[str]) -> list[int]:
        """Lock those of the shards that are free, and mark them dirty; return them.

        What is blocked there behind nothing is found by `sweep`.
        """

    def inherited(self) -> Sequence[Inherited]:
        """Return what the last owners left of the shards that the last ``take`` has taken."""

    def note(self, records: Mapping[int, str | None]) -> None:
        """Write what is accused and under way in these shards, as far as this session owns them.

        The record outlives this process, and need not outlive the server.
        """

    def give(self, shards: Sequence[int]) -> None:
        """Hand shards back in order: mark them clean, then unlock them. What is accused there stays written."""

    def read_ready(self, cursors: Cursors, limit: int, meanwhile: Callable[[], None] | None = None) -> Page:
        """Return the next ready messages, and those that became visible late.

        Args:
            cursors: Where to read on; they are moved.
            limit: Messages at most, but for those that came late.
            meanwhile: Called, if that is of any use, when the answer has arrived and is not decoded yet: the database
                does what it asks ahead while the rows are decoded.
        """

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        """Return the next parked deliveries of these destinations, none before the ready messages that it follows.

        What was read as ready is in memory, or in the table with its verdict; so a parked delivery below that cursor,
        or in a shard that has nothing ready any more, finds every predecessor of its key before it.
        """

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        """Return scheduled messages and retries whose time has come since the last call."""

    def reread_due(self) -> None:
        """Start the reading of what is due from the beginning again."""

    def held_keys(self, keys: Sequence[str], destinations: Sequence[str], skipping: Sequence[str]) -> dict[Pair, int]:
        """Return which (destination, key) have a message in the table that is not done, with the lowest position."""

    def blocked_keys(self, pairs: Collection[Pair], skipping: Sequence[str]) -> dict[Pair, int]:
        """Return which (destination, key) have a delivery that waits for more than room, with the lowest position.

        A delivery may be parked although an earlier one of its key waits for a retry: the earlier one was in the memory
        of a relay that died, and was set aside by its successor.
        """

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int], skipping: Sequence[str]) -> Swept:
        """Look through one slice of all deliveries, and release what is blocked behind nothing.

        A delivery is blocked behind nothing when its predecessor was in the memory of a former owner, or when a
        release missed it. The first of its key is parked; its delivery releases the next ones.

        Args:
            at: Where the slice begins: 0, or where the last one said.
            shards: The shards to look at.
            fresh: Those of them where a delivery may have lost its predecessor a moment ago. Elsewhere a delivery that
                was blocked within the last `SETTLED_S` is left alone: its predecessor is likely to be in memory.
            skipping: The destinations whose dead letters do not hold their successors up.
        """

    def settle_plain(self, rows: Sequence[Row], *, durable: bool = True) -> int:
        """Move messages that every destination took to history, as they were read; return how many there were.

        A message with a delivery that a former owner has set aside is left to ``settle``. A settlement with
        ``durable=False`` is on disk as soon as any later durable one is.
        """

    def settle_plain_ahead(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        """Begin ``settle_plain``, without waiting: it is done before anything that is asked of the session next.

        A row that does not lie where it was read any more is settled when the returned function is called.

        Returns:
            A function that waits until all are settled, and returns how many there were.
        """

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        """Settle anything else, on disk as ``settle_plain`` does; return what is parked now.

        Raises:
            Damaged: A row among these cannot be changed.
        """

    def discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        """Finish what an operator discarded or cancelled; return what that released."""

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        """Set messages aside that no subscription wants, unless others have been registered meanwhile."""

    def report(self, finding: Finding) -> None:
        """Write what was found out about a destination where people, and the other relays, look for it.

        It never replaces an operator's pause; a pause is not declared twice, nor while peers dispute it.
        """

    def claim_probe(self, name: str) -> tuple[bool, Standing]:
        """Ask to be the one relay that probes a paused destination now; return whether it is, and the standing."""

    def claim_rate(self, name: str, want: int, rate: Rate) -> tuple[int, float]:
        """Claim attempts at a destination from the budget that all relays share, by the database's clock.

        Args:
            name: The destination.
            want: How many attempts could start.
            rate: Its limit.

        Returns:
            How many of them may start, and in how many seconds one more may. See `relay.decide.rate`.
        """

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        """Sleep until notified, woken through ``wake_fd`` or timed out; return whether it was notified."""

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        """Return how long to sleep when there is nothing to do: as wanted if writers notify, else shorter."""

    def awake(self) -> None:
        """Let writers skip the notification while the relay polls."""

    def close(self) -> None:
        """End the session; never raises."""


class Store(Protocol):
    """The database of the outbox."""

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> Session:
        """Connect, check the schema, and register as a living relay.

        Once destinations of a later generation than this are registered, the session finds no message any more, nor
        sets one aside as unrouted: it does not know where those go.

        Raises:
            Lost: It cannot be reached now.
            Standby: It can be reached, but nothing can be owned here now.
            Unusable: It can be reached, and will never be of use.
        """
