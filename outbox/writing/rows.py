"""Write messages through the database's dialect.

Nothing is read back, so a worker needs no right except INSERT.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from outbox.draft import Prepared
from outbox.writing.columns import message_table
from outbox.writing.observing import observers
from outbox.writing.refusals import explained
from outbox.writing.transaction import join_transaction


def write(connection: sa.Connection, schema: str | None, messages: Sequence[Prepared]) -> None:
    """Write messages at once, in their order, as part of the connection's transaction.

    Raises:
        DuplicateId: Another message has a given id, and waits, is dead, or is in the history.
        SchemaError: The outbox's tables do not exist.
    """
    dialect = join_transaction(connection)
    keys = {each.ordering_key for each in messages if each.strict_order and each.ordering_key is not None}
    with explained(dialect):
        if keys:
            dialect.wait_for_turns(connection, schema, sorted(keys))
        dialect.write(connection, message_table(schema), messages)
    for observer in observers:
        observer.written(messages, connection)
