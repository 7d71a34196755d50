"""The outbox: messages, deliveries, history, registry, relays, inbox, and the functions that wake up relays.

Plain SQL per database, in the folder `outbox_0001` beside `versions`, with empty lines between the statements; it runs
as it is written. Everything is created without a schema name, in the first schema of the `search_path`, which the
caller sets; functions pin that path (`SET search_path FROM CURRENT`). A function that runs with its owner's rights
calls PostgreSQL's functions by their full names, with arguments of exactly the declared types. Otherwise, in a schema
in which many roles may create, PostgreSQL would prefer another function with better matching types.

`emit` does not check messages that are written by SQL. So the tables refuse values that could not be identified,
shown or read back. The rule for types is that of `outbox.event`. Headers are checked when they are sent: checking each
one here would cost every statement 4 µs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alembic import op

revision = "outbox_0001"
down_revision = None
branch_labels = ("outbox",)
depends_on = None

SQL = Path(__file__).parent.parent / revision
POSTGRES = ("postgres_tables.sql", "postgres_triggers.sql", "postgres_functions.sql")
SQLITE = ("sqlite.sql",)

TABLES = [
    "outbox_message", "outbox_delivery", "outbox_history", "outbox_destination", "outbox_relay",
    "outbox_shard", "outbox_audit", "outbox_sample", "inbox_message", "outbox_rate", "outbox_turn",
    "outbox_meta",
]  # fmt: skip

FUNCTIONS = [
    "outbox_emit", "outbox_take_turns", "outbox_new_id", "outbox_uuid7", "outbox_add_partition",
    "outbox_drop_partition", "outbox_message_checked", "outbox_message_applied", "outbox_delivery_applied",
]  # fmt: skip


def upgrade() -> None:
    for name in POSTGRES if _on_postgres() else SQLITE:
        for statement in _statements(name):
            op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
    if _on_postgres():
        for function in FUNCTIONS:
            op.execute(f"DROP FUNCTION {function}")
        op.execute("DROP SEQUENCE outbox_wake")


def _statements(name: str) -> Iterator[str]:
    text = (SQL / name).read_text(encoding="utf-8").rstrip().removesuffix(";")
    yield from text.split(";\n\n")


def _on_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"
