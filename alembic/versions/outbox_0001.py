"""The outbox: messages, deliveries, history, registry, relays, inbox, and what wakes the relays up.

Plain SQL per database, so that what runs is what you read: it stands in the folder `outbox_0001` beside `versions`, its
statements separated by empty lines. Everything is created unqualified in the first schema of the `search_path`, which
the caller sets; functions pin that path (`SET search_path FROM CURRENT`). What runs with somebody else's rights names
PostgreSQL's functions in full, with arguments of the very types that they take: in a schema where many may create, a
function that fits better would be called instead.

Whoever writes SQL is not checked by `emit`, so the tables refuse what could not be told apart, shown or read back. The
rule for types is that of `outbox.event`. Headers are made fit for their wire when they are sent: to look at each of
them here would cost every statement 4 µs.
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
    "outbox_shard", "outbox_audit", "outbox_sample", "inbox_message", "outbox_rate", "outbox_meta",
]  # fmt: skip

FUNCTIONS = [
    "outbox_emit", "outbox_new_id", "outbox_uuid7", "outbox_add_partition", "outbox_drop_partition",
    "outbox_message_checked", "outbox_message_applied", "outbox_delivery_applied",
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
