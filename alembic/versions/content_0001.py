"""The content tables: contents, extractions, and the topic graphs built from them.

This is plain SQL for each database, which `outbox.schema.statements` finds. Everything is created without a schema
name, in the first schema of the `search_path`, like the outbox.
"""

from __future__ import annotations

from alembic import op

from outbox.schema import statements

revision = "content_0001"
down_revision = None
branch_labels = ("content",)
depends_on = None

TABLES = ("contents", "extractions", "topic_graphs")


def upgrade() -> None:
    for statement in statements(op.get_context().dialect.name, revision, "up"):
        op.execute(statement)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
