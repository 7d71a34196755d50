"""The subscriptions of the registered destinations, as they are now and as they were when a message was settled."""

from __future__ import annotations

import sqlalchemy as sa

from outbox.tables import tables
from relay.decide.subscription import wanted_in, wants


class Registered:
    """The registry as it is now, and as it was.

    Args:
        connection: To the outbox's database.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self.rows = {row.name: row for row in connection.execute(sa.select(tables().destination))}

    def wanting(self, type_: str) -> list[str]:
        """Return the destinations that want this event type now."""
        return [name for name, row in self.rows.items() if row.removed_at is None and wants(row.events, type_)]

    def wanted(self, type_: str, generation: int) -> list[str]:
        """Return the destinations that wanted this event type in a generation."""
        return sorted(name for name, row in self.rows.items() if wants(wanted_in(row.wanted, generation), type_))
