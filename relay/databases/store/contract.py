"""The interface between the relay and a database.

A `Store` opens a `Session`; the session is the lease. It owns shards (`Ownership`), reads their ready messages
(`Reading`), settles them (`Settling`) and sleeps (`Waking`), all from one thread. When the session is lost, every
method raises `Lost`, and the session owns no shard any more. If an outage, a full disk or another session causes an
error of the driver, a method raises `Lost` or a subclass of it instead. The relay then opens another session. If the
database refuses a row, a method raises `RefusedRow` and writes no row.

The folder of this module has the parts that every database needs: `rows` (the form of the rows, and the cursors),
`records` (verdicts, and the results of beats and sweeps), `inheriting` and `ruling` (how to encode and decode notes and
verdicts), `refused` (how to write the rest of a batch when a row is refused), `state_lists` (states for SQL), and
`backlog`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from relay.databases.store.inheriting import Inherited
from relay.databases.store.records import Batch, Peers, Swept
from relay.databases.store.rows import Cursors, Page, Pair, Parked, Row
from relay.decide.rate import Rate
from relay.decide.shared_state import Finding, SharedState

RELEASE_COUNT = 500  # how many blocked deliveries of one key are released at once
DISCARD_COUNT = 500  # how many discarded deliveries are finished at once
SETTLED_S = 10  # a delivery that was blocked for longer is released, if it has no predecessor in the table
LOG_LENGTH = 20  # the most attempts in the log of a delivery
ANY_GENERATION = 2**31 - 1
ON_A_STANDBY = "this database is a standby: it grants locks that mean nothing, so nothing is owned here"


class Lost(Exception):
    """The session has ended, and with it the ownership of its shards. This is an expected event."""


class Refused(Lost):
    """The server answers, but will never let this relay in: it has no such database, role or password."""


class Full(Lost):
    """The database has no room for the rows to be written: wait until it has."""


class Damaged(Lost):
    """The database is damaged: wait until a person has restored it."""


class Standby(Lost):
    """The database, or another session's lock on it, does not allow an owner here now: wait and look again."""


class Ownership(Protocol):
    """The locks of a session, and the rows that relays write for each other."""

    def server_age_s(self) -> float:
        """Return the seconds since the start of the server; ``inf`` if there is no server."""

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        """Show that this relay is alive, owns these shards and wants this many more; return the state of its peers."""

    def take(self, shards: Sequence[int]) -> list[Inherited]:
        """Take those of these shards that are free, and mark them dirty; return how their last owners left them.

        `sweep` finds deliveries that are blocked in these shards without a predecessor.
        """

    def note(self, records: Mapping[int, str | None]) -> None:
        """Write the crash records of these shards, if this session owns them: accused deliveries, and those under way.

        A record is JSON text; ``None`` removes the shard's record. It survives this process, but need not survive the
        server.
        """

    def give(self, shards: Sequence[int]) -> None:
        """Hand shards back in order: mark them clean, then unlock them. Accused deliveries stay on record."""

    def report(self, finding: Finding) -> None:
        """Write a finding about a destination, for the other relays and for people.

        A finding never replaces an operator's pause. A relay does not declare a pause again that is already declared,
        or one that its peers dispute.
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
            How many of them may start, and the seconds until one more may start. See `relay.decide.rate`.
        """


class Reading(Protocol):
    """The reads of a session.

    Attributes:
        unreadable: Message → why it cannot be read. Its row is on the page, with a placeholder for its data; the reader
            removes the row and this entry.
    """

    unreadable: dict[str, str]

    def read_ready(self, cursors: Cursors, limit: int, meanwhile: Callable[[], None] = lambda: None) -> Page:
        """Return the next ready messages, and those that became visible late.

        Args:
            cursors: The positions to continue from. This method moves ``ready`` to the last position read, and adds a
                shard without further ready messages to ``exhausted``, unless newer destinations hide them (see `open`).
            limit: The most messages, not counting late ones; a page also ends after `PAGE_BYTES` of data.
            meanwhile: May be called before the rows are decoded. The database executes the statements of this function
                after the read.
        """

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        """Return the next parked deliveries of these destinations, up to the cursors of the ready messages.

        The deliveries of one destination are in the order of their positions; ``cursors.parked`` moves to the last one.
        All messages below these cursors are in memory, or in the table with a verdict. So the predecessors of such a
        delivery, or of one in a shard without ready messages, are known.
        """

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        """Return scheduled messages and retries that have fallen due since the last call, at most `limit` of each.

        On the page, scheduled messages are in ``messages``, and retries in ``deliveries``; ``full`` is true if a limit
        was reached.
        """

    def reread_due(self) -> None:
        """Read due messages and retries from the beginning again."""

    def held_keys(self, keys: Sequence[str], destinations: Sequence[str]) -> dict[Pair, int]:
        """Return the (destination, key) pairs with an unfinished message in the table, with the lowest position."""

    def blocked_keys(self, pairs: Collection[Pair]) -> dict[Pair, int]:
        """Return the (destination, key) pairs with a delivery that waits for more than room, and the lowest position.

        A delivery may be parked although an earlier one of its key waits for a retry: a relay that died had the earlier
        delivery in memory, and the next owner set that one aside.
        """


class Settling(Protocol):
    """The writes of a session.

    Attributes:
        given_up: (destination, state) → how many deliveries that operators gave up were finished, for the metrics.
    """

    given_up: Counter[tuple[str, str]]

    def settle_plain(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        """Begin to move messages that every destination took to the history, as they were read.

        The server executes this before the next statement of the session. If a former owner has set aside a delivery of
        a message, this skips that message, and the caller has to use ``settle`` for it. With ``durable=False`` this
        does not wait for the disk: the next durable statement makes it durable, too.

        Returns:
            A function that settles rows that have moved, waits until all are settled, and returns how many were
            settled. It raises `RefusedRow`.
        """

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        """Settle exceptions (`durable` is as in ``settle_plain``); return the deliveries that are parked now."""

    def discard(self, deliveries: Sequence[tuple[str, str]]) -> list[Parked]:
        """Finish deliveries that an operator discarded or cancelled, or whose message could not be finished before.

        Returns the deliveries that this call released.
        """

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        """Set unrouted messages aside, unless other destinations have been registered in the meantime."""

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int]) -> Swept:
        """Scan one slice of all deliveries, and release those that are blocked without a predecessor.

        A delivery lacks its predecessor if that was in the memory of a former owner, or if a release missed the
        delivery. The first delivery of the key is parked; when it ends, the next ones are released.

        A retry that was written before the clock was set back becomes due.

        Args:
            at: The beginning of the slice: 0, or the `next_at` of the previous slice.
            shards: The shards to scan.
            fresh: The newly taken shards among them, in which a delivery may just have lost its predecessor. In all
                other shards a delivery that was blocked within the last `SETTLED_S` is skipped, because its predecessor
                is likely to be in memory.
        """


class Waking(Protocol):
    """The sleep of a session."""

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        """Sleep until notified, woken through ``wake_fd`` or timed out; return whether this thread was notified.

        Args:
            timeout_s: The longest time to sleep, in seconds.
            wake_fd: Becomes readable when another thread wakes this one; this method then empties it.
        """

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        """Return how long to sleep if there is nothing to do: the wanted time if writers notify, else less."""

    def awake(self) -> None:
        """Let writers skip the notification while the relay polls. Do nothing if writers do not notify."""


class Session(Protocol):
    """An owning session, in parts by purpose. It is not thread-safe: it belongs to the thread that opened it."""

    @property
    def ownership(self) -> Ownership: ...

    @property
    def reading(self) -> Reading: ...

    @property
    def settling(self) -> Settling: ...

    @property
    def waking(self) -> Waking: ...

    def close(self) -> None:
        """End the session; never raises."""


class Store(Protocol):
    """The database of the outbox."""

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> Session:
        """Connect, check the schema (`relay.databases.schema.verify_version`), and register as a living relay.

        After destinations of a later generation are registered, the session finds no messages any more, and sets none
        aside as unrouted, because it does not know these destinations.

        Raises:
            Lost: The database cannot be reached now; `Refused`: it will never let this relay in.
            Standby: It can be reached, but no session can own shards here now.
            Unusable: It can be reached, but cannot be used.
        """
