"""The outbox's tables, as SQLAlchemy definitions.

The migrations in ``alembic/versions`` create these tables; a test compares the two. Partitions, triggers, the wake-up
sequence and functions are defined in the migration alone.

==================  ==================================================================================
table               holds
==================  ==================================================================================
outbox_message      messages that are not settled everywhere yet: small, however long the history
outbox_delivery     the exceptions: deliveries that are parked, blocked, waiting, dead, or done early
outbox_history      messages that were delivered, discarded, cancelled or expired, and when; one partition a day
outbox_destination  the registered destinations, their subscriptions and health
outbox_relay        the relays that are alive, and their beat
outbox_shard        per shard: whether its owner handed it back, and if not, what may have killed that owner
outbox_audit        what operators did
outbox_sample       measurements of every fifteen seconds: rates, backlog, latencies
inbox_message       what listeners have processed
outbox_rate         per destination with a rate limit: how much of the common budget is used
outbox_turn         what ``strict_order`` locks on PostgreSQL, a row for each slot of keys
outbox_meta         the schema's version, and the oldest release that may use it
==================  ==================================================================================
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import sqlalchemy as sa

from outbox.schema import VERSION_TABLE, OutboxMetaData
from outbox.tables import definitions
from outbox.tables.types import INBOX, JSON, SHARD_COUNT, BigInt, Id, Instant, TxId, insert

__all__ = [
    "INBOX",
    "JSON",
    "SHARD_COUNT",
    "VERSION_TABLE",
    "BigInt",
    "Id",
    "Instant",
    "Tables",
    "TxId",
    "include_name",
    "insert",
    "is_outbox_table",
    "metadata",
    "tables",
]


class Tables:
    """All tables of one outbox.

    Args:
        schema: The PostgreSQL schema of the outbox; ``None`` follows the connection's ``search_path``.
    """

    def __init__(self, schema: str | None = None) -> None:
        self.metadata: sa.MetaData = OutboxMetaData(schema=schema)
        self.message = definitions.message(self.metadata)
        self.delivery = definitions.delivery(self.metadata)
        self.history = definitions.history(self.metadata)
        self.destination = definitions.destination(self.metadata)
        self.relay = definitions.relay(self.metadata)
        self.shard = definitions.shard(self.metadata)
        self.audit = definitions.audit(self.metadata)
        self.sample = definitions.sample(self.metadata)
        self.inbox = definitions.inbox(self.metadata)
        self.rate = definitions.rate(self.metadata)
        self.turn = definitions.turn(self.metadata)
        self.meta = definitions.meta(self.metadata)


@cache
def tables(schema: str | None = None) -> Tables:
    """Return the tables of the outbox in ``schema``: the same objects each time."""
    return Tables(schema)


def metadata(schema: str | None = None) -> sa.MetaData:
    """Return the outbox's tables as a ``MetaData``, for an adopter's own tests.

    Its ``create_all`` creates what the migrations create (tables, indexes, triggers, functions), on PostgreSQL and on
    SQLite; ``drop_all`` removes it. Both take an engine or a connection.

    Args:
        schema: The PostgreSQL schema of the outbox, which ``create_all`` creates too; ``None``: the connection's first.

    Example:
        >>> engine = sa.create_engine("sqlite://")
        >>> metadata().create_all(engine)
        >>> sa.inspect(engine).has_table("outbox_message")
        True
    """
    return tables(schema).metadata


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """Return whether autogenerate may see a name; ``context.configure(include_name=…)`` hides our tables with it.

    The host may own a table called ``inbox_message``: it is hidden only in a schema that holds an outbox.

    Args:
        name: The name that Alembic is comparing.
        type_: The kind of object: ``"table"``, ``"index"``, ``"column"`` …
        parent_names: The names above it; ``schema_name`` is its schema.

    Returns:
        ``False`` for our tables, the history's partitions and our version table, ``True`` for everything else.

    Source: https://alembic.sqlalchemy.org/en/latest/autogenerate.html#omitting-table-names-from-the-autogenerate-process
    """
    if type_ != "table" or name is None or not is_outbox_table(name):
        return True
    return name == INBOX and not _holds_an_outbox((parent_names or {}).get("schema_name"))


def _holds_an_outbox(schema: str | None) -> bool:
    """Ask Alembic's database whether the schema holds an outbox; return ``True`` where it cannot be asked."""
    context = sys.modules.get("alembic.context")
    try:
        connection = context.get_context().connection if context is not None else None
    except (NameError, AttributeError):  # no env.py is running
        connection = None
    if connection is None:
        return True
    inspector = sa.inspect(connection)
    return bool(inspector.has_table("outbox_message", schema=schema or inspector.default_schema_name))


def is_outbox_table(name: str) -> bool:
    """Return whether ``name`` is one of the outbox's tables or partitions."""
    return name in tables().metadata.tables or name == VERSION_TABLE or name.startswith("outbox_history_")
