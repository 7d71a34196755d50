"""The columns of each table of the outbox. Its indexes and constraints are in the migration alone."""

from __future__ import annotations

import sqlalchemy as sa

from outbox.tables.types import INBOX, JSON, BigInt, Id, Instant, TxId


def message(metadata: sa.MetaData) -> sa.Table:
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
    )


def delivery(metadata: sa.MetaData) -> sa.Table:
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
    )


def history(metadata: sa.MetaData) -> sa.Table:
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
    )


def destination(metadata: sa.MetaData) -> sa.Table:
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
    )


def relay(metadata: sa.MetaData) -> sa.Table:
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


def shard(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_shard",
        metadata,
        sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("dirty", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("owner", sa.Text),  # the relay's id, for people
        sa.Column("relay", BigInt),  # the relay's number, for relays
        sa.Column("started", JSON),
    )


def audit(metadata: sa.MetaData) -> sa.Table:
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
    )


def sample(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_sample",
        metadata,
        sa.Column("at", Instant, primary_key=True),
        sa.Column("relay", sa.Text, primary_key=True),  # empty: about the whole outbox
        sa.Column("span_s", sa.Double, nullable=False),
        sa.Column("facts", JSON, nullable=False),
    )


def inbox(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        INBOX,
        metadata,
        sa.Column("listener", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("done_at", Instant, nullable=False, server_default=sa.FetchedValue()),
    )


def rate(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_rate",
        metadata,
        sa.Column("destination", sa.Text, primary_key=True),
        sa.Column("rate", sa.Text),  # as the operator wrote it, for people
        # the theoretical arrival of the next attempt, in seconds since 1970; see relay.decide.rate
        sa.Column("arrival_s", sa.Double, nullable=False, server_default="0"),
    )


def turn(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_turn",
        metadata,
        sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
    )


def meta(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "outbox_meta",
        metadata,
        sa.Column("schema_version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("oldest_release", sa.Text, nullable=False),
    )
