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
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from outbox.schema import VERSION_TABLE, OutboxMetaData

SHARD_COUNT = 64
INBOX = "inbox_message"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
BigInt = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class Xid8(sa.types.UserDefinedType[int]):
    """PostgreSQL's ``xid8``: a transaction id that never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


class Instant(sa.TypeDecorator[datetime]):
    """A point in time: ``timestamptz`` on PostgreSQL, UTC text on SQLite, an aware ``datetime`` in Python."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


# PostgreSQL's transaction id. On SQLite, where commits come one after another, a counter of changes.
TxId = Xid8().with_variant(sa.Integer(), "sqlite")


class Tables:
    """All tables of one outbox.

    Args:
        schema: The PostgreSQL schema of the outbox; ``None`` follows the connection's ``search_path``.
    """

    def __init__(self, schema: str | None = None) -> None:
        self.metadata: sa.MetaData = OutboxMetaData(schema=schema)
        self.message = _message(self.metadata)
        self.delivery = _delivery(self.metadata)
        self.history = _history(self.metadata)
        self.destination = _destination(self.metadata)
        self.relay = _relay(self.metadata)
        self.shard = _shard(self.metadata)
        self.audit = _audit(self.metadata)
        self.sample = _sample(self.metadata)
        self.inbox = _inbox(self.metadata)
        self.rate = _rate(self.metadata)
        self.turn = _turn(self.metadata)
        self.meta = _meta(self.metadata)


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
    return name in _OURS or name.startswith("outbox_history_")


def _message(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_message",
        metadata,
        sa.Column("id", Id, primary_key=True),
        sa.Column("position", BigInt, nullable=False, server_default=sa.FetchedValue()),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("ordering_key", sa.Text),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("created_at", Instant, nullable=False, server_default=sa.FetchedValue()),
        sa.Column("due_at", Instant),
        sa.Column("expires_at", Instant),
        sa.Column("state", sa.Text, nullable=False, server_default="ready"),
        sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
        sa.Column("txid", TxId, nullable=False, server_default=sa.FetchedValue()),
        sa.Column("shard", sa.SmallInteger, nullable=False, server_default=sa.FetchedValue()),
        sa.Column("size", sa.Integer, nullable=False, server_default=sa.FetchedValue()),
        sa.Index("outbox_message_ready", "shard", "position", postgresql_where=sa.text("state = 'ready'")),
        sa.Index("outbox_message_txid", "txid", "position", "due_at"),
        sa.Index("outbox_message_due", "shard", "due_at", "position", postgresql_where=sa.text("state = 'scheduled'")),
        sa.Index("outbox_message_unrouted", "id", postgresql_where=sa.text("state = 'unrouted'")),
    )


def _delivery(metadata: sa.MetaData) -> sa.Table:
    def where(condition: str) -> dict[str, Any]:
        return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}

    return sa.Table(
        "outbox_delivery",
        metadata,
        sa.Column("message_id", Id, primary_key=True),
        sa.Column("destination", sa.Text, primary_key=True),
        sa.Column("shard", sa.SmallInteger, nullable=False),
        sa.Column("position", BigInt, nullable=False),
        sa.Column("ordering_key", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", Instant),
        sa.Column("first_failed_at", Instant),
        sa.Column("reason", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.Column("log", JSON, nullable=False, server_default="[]"),
        sa.Column("changed_at", Instant, nullable=False, server_default=sa.FetchedValue()),
        sa.Column("txid", TxId, nullable=False, server_default=sa.FetchedValue()),
        sa.Index("outbox_delivery_parked", "destination", "shard", "position", **where("state = 'parked'")),
        sa.Index(
            "outbox_delivery_key",
            "ordering_key",
            "destination",
            "position",
            **where("ordering_key IS NOT NULL AND state <> 'delivered'"),
        ),
        sa.Index("outbox_delivery_retry", "shard", "due_at", "position", **where("state = 'retry'")),
        sa.Index("outbox_delivery_dead", "destination", "changed_at", **where("state = 'dead'")),
        sa.Index("outbox_delivery_txid", "txid", "shard"),
    )


def _history(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_history",
        metadata,
        sa.Column("id", Id, nullable=False),
        sa.Column("delivered_at", Instant, nullable=False, server_default=sa.FetchedValue()),
        sa.Column("position", BigInt, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("ordering_key", sa.Text),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        # the generation of the registered destinations for which it was settled; see outbox_destination.wanted
        sa.Column("registered", sa.Integer),
        # "discarded", "cancelled" or "expired"; null when a destination took it
        sa.Column("outcome", sa.Text),
        # {destination: {"state": …, "attempts": …, "at": …}}; null when every destination took it on the first attempt
        sa.Column("deliveries", JSON),
        sa.Index("outbox_history_id", "id"),
        sa.Index(
            "outbox_history_outcome",
            "outcome",
            "id",
            postgresql_where=sa.text("outcome IS NOT NULL"),
            sqlite_where=sa.text("outcome IS NOT NULL"),
        ),
    )


def _destination(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_destination",
        metadata,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("events", JSON, nullable=False),
        # [[generation, events], …]: the events it wanted from each generation on; null events: it was removed
        sa.Column("wanted", JSON, nullable=False, server_default="[]"),
        sa.Column("on_dead", sa.Text, nullable=False, server_default="block"),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="healthy"),
        sa.Column("reason", sa.Text),
        sa.Column("note", sa.Text),  # of a healthy destination: the failure that occurs now and then
        sa.Column("paused_by", sa.Text),
        sa.Column("until", Instant),
        sa.Column("pauses", sa.Integer, nullable=False, server_default="0"),  # in a row; each lasts longer
        sa.Column("disputed_at", Instant),  # when a relay that can reach it last contradicted another relay
        sa.Column("resumed_at", Instant),  # when an operator last resumed it
        sa.Column("removed_at", Instant),
        sa.Column("since", Instant, nullable=False, server_default=sa.FetchedValue()),  # when this state began
        sa.Column("changed_at", Instant, nullable=False, server_default=sa.FetchedValue()),
        sa.Index("outbox_destination_generation", "generation"),
    )


def _relay(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_relay",
        metadata,
        sa.Column("number", BigInt, primary_key=True, server_default=sa.FetchedValue()),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("backend_pid", sa.Integer),
        sa.Column("presence", sa.Integer),  # the key of the lock that it holds while it is alive
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("shards", JSON, nullable=False, server_default="[]"),
        sa.Column("wants", sa.Integer, nullable=False, server_default="0"),
        sa.Column("started_at", Instant, nullable=False, server_default=sa.FetchedValue()),
        sa.Column("last_seen_at", Instant, nullable=False, server_default=sa.FetchedValue()),
    )


def _shard(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_shard",
        metadata,
        sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("dirty", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("owner", sa.Text),  # the relay's id, for people
        sa.Column("relay", BigInt),  # the relay's number, for relays
        sa.Column("started", JSON),
    )


def _audit(metadata: sa.MetaData) -> sa.Table:
    later = sa.text("part_of IS NOT NULL")
    return sa.Table(
        "outbox_audit",
        metadata,
        sa.Column("id", BigInt, primary_key=True, server_default=sa.FetchedValue()),
        sa.Column("part_of", BigInt),  # the first row of the same action
        sa.Column("at", Instant, nullable=False, server_default=sa.FetchedValue()),
        sa.Column("role", sa.Text, server_default=sa.FetchedValue()),  # the login role; null on SQLite
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", JSON, nullable=False),
        sa.Column("count", BigInt, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Index("outbox_audit_part", "part_of", postgresql_where=later, sqlite_where=later),
    )


def _sample(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_sample",
        metadata,
        sa.Column("at", Instant, primary_key=True),
        sa.Column("relay", sa.Text, primary_key=True),  # empty: about the whole outbox
        sa.Column("span_s", sa.Double, nullable=False),
        sa.Column("facts", JSON, nullable=False),
    )


def _inbox(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        INBOX,
        metadata,
        sa.Column("listener", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("done_at", Instant, nullable=False, server_default=sa.FetchedValue()),
        sa.Index("inbox_message_done", "done_at"),
    )


def _rate(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_rate",
        metadata,
        sa.Column("destination", sa.Text, primary_key=True),
        sa.Column("rate", sa.Text),  # as the operator wrote it, for people
        # the theoretical arrival of the next attempt, in seconds since 1970; see relay.decide.rate
        sa.Column("arrival_s", sa.Double, nullable=False, server_default="0"),
    )


def _turn(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_turn",
        metadata,
        sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
    )


def _meta(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_meta",
        metadata,
        sa.Column("schema_version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("oldest_release", sa.Text, nullable=False),
    )


_OURS = {*Tables().metadata.tables, VERSION_TABLE}
