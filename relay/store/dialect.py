"""What operators' queries and housekeeping need of a database, beyond the SQL that all have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa

Counts = Counter[tuple[str, str]]
# Returns the first ready messages of shards within a span from their floors; `None` if its time is over.
Ask = Callable[[Sequence[int], Sequence[int], int], Sequence[Any] | None]
Walk = Callable[[Ask, int], tuple[list[Any], bool]]  # see `relay.admin.timeline.floors`


class BacklogReader(Protocol):
    """Reads the backlog at a bounded cost: see `relay.admin.timeline.backlog`."""

    is_estimate: bool

    def messages(self) -> Counts:
        """Count messages by state and type."""

    def deliveries(self) -> Counts:
        """Count deliveries by destination and state."""

    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        """Yield event types, each with the instant since which a message of it waits to be read."""

    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        """Yield destinations, each with the instant since which a delivery is parked or retried there."""

    def dead(self, destinations: Sequence[str], counted: Counts) -> Mapping[str, int]:
        """Count dead letters by destination; `counted` is what `deliveries` returned."""

    def unrouted(self, counted: int) -> int:
        """Count unrouted messages, of which `messages` counted this number."""


class Dialect(Protocol):
    """What operators' queries and housekeeping need of a database: the module `operators` in its folder."""

    CLOCK: sa.ColumnElement[datetime]  # the only clock that all relays and operators share
    EMITTED: str  # the query for the highest position that was used so far
    INDEXES_SHARDS: bool  # an index has the ready messages of each shard
    HAS_PARTITIONS: bool  # the history has a partition for each day
    HOLDS_NOTHING: sa.ColumnElement[bool]  # a relay's row, of which no session holds a lock

    def begin_snapshot(self, connection: sa.Connection) -> None:
        """Begin a read-only transaction that sees one moment of the database."""

    def begin_writing(self, connection: sa.Connection) -> None:
        """Begin a transaction that reads, and then writes."""

    def by_index(self, connection: sa.Connection) -> None:
        """Make the rest of this transaction read rows in the order of an index, and stop when it has enough."""

    def bound(self, connection: sa.Connection, timeout_s: float) -> None:
        """Have the server end a statement of this transaction that takes longer, or waits for a lock for a second."""

    def exact(self, instant: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return an instant in full precision, for a later comparison."""

    def as_stored(self, at: datetime) -> datetime | str:
        """Return an instant as a value to compare with `exact`."""

    def as_id(self, text: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
        """Return text in the form in which ids are stored and indexed; null if it is no id."""

    def next_txid(self, connection: sa.Connection) -> Any:
        """Return the value for ``txid`` of a row that an operator changes, in a transaction that writes.

        An owner reads each row once. It finds changes behind its cursor by ``txid``.
        """

    def nudge(self, connection: sa.Connection) -> None:
        """Have the relays look when this transaction is committed, and not only at their next poll."""

    def is_standby(self, connection: sa.Connection) -> bool:
        """Return whether the database takes no writes."""

    def take_turn(self, connection: sa.Connection) -> None:
        """Exclude the housekeeping of other relays until the transaction ends; fail at once if one is at work."""

    def lock_registry(self, connection: sa.Connection) -> None:
        """Exclude other registrations of destinations until the transaction ends."""

    def share_registry(self, connection: sa.Connection) -> None:
        """Have registrations of destinations wait until the transaction ends."""

    def estimate_beyond(self, connection: sa.Connection, table: str, count: int) -> int | None:
        """Return an estimate of a table's rows, without counting them; ``None`` if there are at most `count`."""

    def owned(self, connection: sa.Connection, rows: Sequence[Any], beating: Mapping[int, Any]) -> Mapping[int, Any]:
        """Return the shards of each relay that has a session.

        Args:
            connection: A connection.
            rows: The rows of the relays, in the order of their start.
            beating: The relays that have beaten lately, with their shards: the answer where locks cannot be seen.
        """

    def backlog(self, connection: sa.Connection, walk: Walk) -> BacklogReader:
        """Return a reader of the backlog, in a transaction whose timeout and planner settings it may change."""

    def replay_sql(self) -> Mapping[str, str]:
        """Return the statements of a replay (see `relay.store.replay_sql`)."""

    def estimate_replay(self, connection: sa.Connection, span: Mapping[str, Any]) -> int:
        """Return about how many settled messages are in a span."""

    def ids(self, ids: Sequence[str]) -> Any:
        """Return ids as the parameter of a statement of a replay."""

    def picked(self, rows: Sequence[tuple[str, Any, str]]) -> dict[str, Any]:
        """Return the parameters of a replay for (id, instant, new id) rows."""
