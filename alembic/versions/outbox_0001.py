"""The outbox: messages, deliveries, history, registry, relays, inbox, and the functions that wake up relays.

This is plain SQL for each database, which `outbox.schema.statements` finds; it runs as it is written. Everything is
created without a schema name, in the first schema of the `search_path`, which the caller sets; functions pin that path
(`SET search_path FROM CURRENT`). A function that runs with its owner's rights calls PostgreSQL's functions by their
full names, with arguments of exactly the declared types. Otherwise, in a schema in which many roles may create,
PostgreSQL would prefer another function with better matching types.

`emit` does not check messages that are written by SQL. So the tables refuse values that could not be identified, shown
or read back. The rule for types is that of `outbox.event`. Headers are checked when they are sent: to check each one
here would cost every statement 4 µs.
"""

from __future__ import annotations

from alembic import op

from outbox.schema import statements

revision = "outbox_0001"
down_revision = None
branch_labels = ("outbox",)
depends_on = None

TABLES = [
    "outbox_message", "outbox_delivery", "outbox_history", "outbox_destination", "outbox_relay",
    "outbox_shard", "outbox_audit", "outbox_sample", "inbox_message", "outbox_rate", "outbox_turn",
    "outbox_meta",
]  # fmt: skip


def upgrade() -> None:
    for statement in statements(op.get_context().dialect.name, revision, "up"):
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
    for statement in statements(op.get_context().dialect.name, revision, "down"):
        op.execute(statement)
