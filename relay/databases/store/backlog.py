"""Read the backlog at a bounded cost, for `relay.admin.timeline.backlog`: the part that all databases share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.decide.verdict import State

Counts = Counter[tuple[str, str]]

# Returns the first ready messages of shards within a span from their floors; `None` if there is no time left.
Ask = Callable[[Sequence[int], Sequence[int], int], Sequence[Any] | None]
Walk = Callable[[Ask, int], tuple[list[Any], bool]]  # see `relay.admin.timeline.floors`

# Index: outbox_message_unrouted and outbox_delivery_dead, up to the limit of the count; no row is read.
UNROUTED = "SELECT count(*) FROM (SELECT 1 FROM outbox_message WHERE state = 'unrouted' LIMIT :rows) AS m"
DEAD = """
SELECT count(*) FROM (
    SELECT 1 FROM outbox_delivery WHERE state = 'dead' AND destination = :destination LIMIT :rows) AS d
"""


class BacklogReader(ABC):
    """Reads the backlog.

    Args:
        connection: A connection in a transaction.
        exact: Up to this number, a destination's dead letters and the unrouted messages are counted exactly.

    Attributes:
        is_estimate: Whether large numbers are estimates.
    """

    def __init__(self, connection: sa.Connection, *, exact: int) -> None:
        self._connection, self._exact = connection, exact
        self.is_estimate = False

    @abstractmethod
    def messages(self) -> Counts:
        """Count messages by state and type."""

    @abstractmethod
    def deliveries(self) -> Counts:
        """Count deliveries by destination and state."""

    @abstractmethod
    def oldest_unread(self) -> Iterator[tuple[str, datetime]]:
        """Yield event types, each with the instant since which a message of this type has been waiting to be read."""

    @abstractmethod
    def oldest_set_aside(self, destinations: Sequence[str]) -> Iterator[tuple[str, datetime]]:
        """Yield destinations, each with the instant since which a delivery there has been parked or retried."""

    def dead(self, destinations: Sequence[str], counted: Counts) -> Mapping[str, int]:
        """Count dead letters by destination; `counted` is what `deliveries` returned."""
        return {name: self._up_to_exact(DEAD, counted[name, State.DEAD], destination=name) for name in destinations}

    def unrouted(self, counted: int) -> int:
        """Count unrouted messages; `counted` is the number that `messages` returned."""
        return self._up_to_exact(UNROUTED, counted)

    def _up_to_exact(self, statement: str, estimated: int, **parameters: Any) -> int:
        """Return the exact count, or the estimate if counting stopped at the limit."""
        rows = self._asked(statement, rows=self._exact, **parameters)
        if rows is None:
            return estimated
        found: int = rows[0][0]
        return found if found < self._exact else max(found, estimated)

    def _asked(self, statement: str, **parameters: Any) -> Sequence[Any] | None:
        """Return the rows of a statement; ``None`` if it takes too long."""
        return self._connection.execute(sa.text(statement), parameters).all()
