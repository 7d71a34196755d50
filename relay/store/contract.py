"""What the relay asks of a database.

A `Store` opens a `Session`; the session is the lease. It owns shards, reads what is ready in them and settles it, all
from one thread. Whenever the session turns out to be gone, every method raises `Lost`, and whatever it owned it owns
no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from relay.decide.rate import Rate
from relay.decide.standing import Finding, Standing

Row = tuple[Any, ...]

# The columns of a row that was read, in this order; `address` is where it lay, if the store wants to know.
# `expires_s` and `due_s` are instants in seconds since 1970; ``None`` where a message has none.
MESSAGE_COLUMNS = (
    "id", "position", "shard", "generation", "type", "source", "subject", "ordering_key", "data", "headers",
    "created_at", "address",
    "expires_s", "due_s",
)  # fmt: skip

PAGE_BYTES = 1024 * 1024
RELEASE_COUNT = 500  # blocked deliveries of one key that are let go at once
DISCARD_COUNT = 500  # discarded deliveries that are finished at once
SETTLED_S = 10  # a delivery that was blocked for longer, with nothing before it in the table, is released
LOG_LENGTH = 20  # attempts that a delivery remembers
UNBOUNDED = 2**63 - 1
ANY_GENERATION = 2**31 - 1
GIVEN_UP = "'discarded', 'cancelled'"  # by an operator; the owner of the shard does what follows from it
UNTAKEN = f"{GIVEN_UP}, 'expired'"  # nothing is left to do, and the destination has not taken it
FINAL = f"'delivered', {UNTAKEN}"  # nothing is left to do


Pair = tuple[str, str]  # (destination, ordering key)
Parked = tuple[str, int, int]  # (destination, shard, position) of a delivery that is parked now


class Lost(Exception):
    """The session is gone, and with it everything it owned. Expected: the world is like that."""


ON_A_STANDBY = "this database is a standby: it grants locks that mean nothing, so nothing is owned here"


class Full(Lost):
    """The database has no room for what is to be written: wait until it has."""


class Damaged(Exception):
    """A row can neither be read nor changed: what the disk has of it is not what was written."""


class Standby(Lost):
    """This database, or somebody else's lock on it, allows no owner here now: wait and look again."""


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
        """Whether nothing was read of it yet."""
        return not self.ready[shard] and shard not in self.exhausted

    def parked_until(self, shard: int) -> int:
        """How far parked deliveries may be read: as far as ready messages were, and that may be all of them."""
        return UNBOUNDED if shard in self.exhausted else self.ready[shard]

    def lower(self, destination: str, shard: int, position: int) -> None:
        """This delivery is parked now: read on from it, if it had been passed."""
        pair = destination, shard
        self.parked[pair] = min(self.parked.get(pair, 0), position - 1)


@dataclass(slots=True)
class Page:
    """What one look found.

    Args:
        messages: Messages to take up.
        deliveries: Deliveries to take up again.
        discarded: (message, destination) pairs that an operator discarded or cancelled.
        unparked: Destinations for which something was parked by somebody else.
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
    is_unknown: bool = False  # a former owner cannot say: written only where nobody has ruled since


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
    """What one slice of the deliveries held.

    Args:
        next_at: Where the next slice begins; ``None`` when this one was the last.
        parked: What was blocked although nothing before it was still to be done, and is parked now.
        discarded: (message, destination) pairs that wait for nothing but to be finished.
        holds_keys: Whether any delivery holds its ordering key.
    """

    next_at: int | None
    parked: Sequence[Parked] = ()
    discarded: Sequence[tuple[str, str]] = ()
    holds_keys: bool = False


@dataclass(frozen=True, slots=True)
class Peers:
    """What a beat shows of the others, by the database's own lock table and clock.

    Args:
        me: My number among the relays.
        wants_of: Living relay → how many shards it asks for.
        held: The shards that somebody holds, me included.
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
        shard: Which.
        owner: Who it was; ``None`` when it handed back.
        was_mine: Whether that was this very process, in an earlier session.
        is_dirty: Whether somebody else owned it, and did not hand it back.
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
        unreadable: Message → why it cannot be read. What is read stands on its page all the same, with something else
            in place of its data; whoever reads takes both out.
        given_up: (destination, state) → deliveries that operators gave up and that are finished now, to be counted.
    """

    unreadable: dict[str, str]
    given_up: Counter[tuple[str, str]]

    def server_age_s(self) -> float:
        """Seconds since the server was started."""

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        """Say that I am alive, and see who else is."""

    def take(self, shards: Sequence[int], skipping: Sequence[str]) -> list[int]:
        """Lock those of the shards that are free, and mark them dirty. What waits there for nothing `sweep` finds."""

    def inherited(self) -> Sequence[Inherited]:
        """What the last owners left of the shards that were taken by the last ``take``."""

    def note(self, records: Mapping[int, str | None]) -> None:
        """Write what is accused and under way in these shards, as far as they are mine (`relay.delivery.crash_guard`).

        It outlives this process, and need not outlive the server.
        """

    def give(self, shards: Sequence[int]) -> None:
        """Hand shards back in order: marked clean, then unlocked. What is accused there stays written."""

    def read_ready(self, cursors: Cursors, limit: int, meanwhile: Callable[[], None] | None = None) -> Page:
        """The next ready messages; always also those that became visible late.

        Args:
            cursors: Where to read on; they are moved.
            limit: Messages at most, but for those that came late.
            meanwhile: Called, if that is of any use, when the answer is there and nobody has looked at it yet: what
                it asks ahead, the database does while the rows are decoded.
        """

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        """The next parked deliveries of these destinations, none before the ready messages that it follows.

        What was read as ready is in memory, or in the table with its verdict; so a parked delivery below that cursor,
        or in a shard that has nothing ready any more, finds every predecessor of its key before it.
        """

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        """Scheduled messages and retries whose time has come since the last call."""

    def reread_due(self) -> None:
        """Start the reading of what is due from the beginning again."""

    def held_keys(self, keys: Sequence[str], destinations: Sequence[str], skipping: Sequence[str]) -> dict[Pair, int]:
        """Which (destination, key) of these have a message in the table that is not done, and the lowest position."""

    def blocked_keys(self, pairs: Collection[Pair], skipping: Sequence[str]) -> dict[Pair, int]:
        """Which of these (destination, key) have a delivery in the table that waits for more than room, and the lowest.

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
        """Move messages, as they were read, that every destination took to history; returns how many there were.

        One that a former owner has set something of aside is left to ``settle``.
        What is settled with ``durable=False`` is on disk when anything durable that comes after it is.
        """

    def settle_plain_ahead(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        """``settle_plain``, and not wait for it: it comes before whatever is asked of the session next.

        But for what does not lie where it was read any more: that is settled when somebody waits.

        Returns:
            Waits until it is settled, and tells how many there were.
        """

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        """Settle anything else, on disk as ``settle_plain`` does; returns what is parked now.

        Raises:
            Damaged: A row among these cannot be changed.
        """

    def discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        """Finish what an operator discarded or cancelled; returns what that released."""

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        """Set messages aside that no subscription wants, unless others have been registered meanwhile."""

    def report(self, finding: Finding) -> None:
        """Write what was found out about a destination where people, and the other relays, look for it.

        Never over what an operator paused; a pause is not declared twice, nor while peers dispute it.
        """

    def claim_probe(self, name: str) -> tuple[bool, Standing]:
        """Ask to be the one relay that probes a paused destination now; whether it is, and how things stand."""

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
        """Sleep until notified, woken through ``wake_fd`` or timed out; true when notified."""

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        """How long to sleep when there is nothing to do: as wanted if somebody will wake us, else shorter."""

    def awake(self) -> None:
        """Spare the workers the notification."""

    def close(self) -> None:
        """End the session; never raises."""


class Store(Protocol):
    """Where the outbox lives."""

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> Session:
        """Connect, check the schema, and register as a living relay.

        Once destinations of a later generation than this are registered, the session finds no message any more, nor
        sets one aside as unrouted: where those go is not for it to say.

        Raises:
            Lost: It cannot be reached now.
            Standby: It can be reached, but nothing can be owned here now.
            Unusable: It can be reached and never will do.
        """
