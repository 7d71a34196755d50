"""The outbox: messages, deliveries, history, registry, relays, inbox, and the functions that wake up relays.

This is plain SQL for each database, in the folder `outbox_0001` beside `versions`. The names of the files begin with
SQLAlchemy's name of the database, and empty lines separate the statements; the SQL runs as it is written. Everything is
created without a schema name, in the first schema of the `search_path`, which the caller sets; functions pin that path
(`SET search_path FROM CURRENT`). A function that runs with its owner's rights calls PostgreSQL's functions by their
full names, with arguments of exactly the declared types. Otherwise, in a schema in which many roles may create,
PostgreSQL would prefer another function with better matching types.

`emit` does not check messages that are written by SQL. So the tables refuse values that could not be identified, shown
or read back. The rule for types is that of `outbox.event`. Headers are checked when they are sent: to check each one
here would cost every statement 4 µs.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "outbox_0001"
down_revision = None
branch_labels = ("outbox",)
depends_on = None

SQL = Path(__file__).parent.parent / revision

TABLES = [
    "outbox_message", "outbox_delivery", "outbox_history", "outbox_destination", "outbox_relay",
    "outbox_shard", "outbox_audit", "outbox_sample", "inbox_message", "outbox_rate", "outbox_turn",
    "outbox_meta",
]  # fmt: skip

# What a database has besides tables.
FURTHER = {
    "postgresql": [
        "FUNCTION outbox_emit", "FUNCTION outbox_take_turns", "FUNCTION outbox_new_id", "FUNCTION outbox_uuid7",
        "FUNCTION outbox_add_partition", "FUNCTION outbox_drop_partition", "FUNCTION outbox_message_checked",
        "FUNCTION outbox_message_applied", "FUNCTION outbox_delivery_applied", "SEQUENCE outbox_wake",
    ],
}  # fmt: skip


def upgrade() -> None:
    for path in sorted(SQL.glob(f"{_dialect()}*.sql")):
        for statement in path.read_text(encoding="utf-8").rstrip().removesuffix(";").split(";\n\n"):
            op.execute(statement)


def downgrade() -> None:
    for each in [*(f"TABLE {table}" for table in TABLES), *FURTHER.get(_dialect(), ())]:
        op.execute(f"DROP {each}")


def _dialect() -> str:
    return op.get_context().dialect.name
