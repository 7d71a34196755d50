"""The content tables: contents, extractions, and the topic graphs built from them.

This is plain SQL for each database, in the folder `content_0001` beside `versions`. Each file has SQLAlchemy's name of
its database, and empty lines between the statements. Everything is created without a schema name, in the first schema
of the `search_path`, like the outbox.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "content_0001"
down_revision = None
branch_labels = ("content",)
depends_on = None

SQL = Path(__file__).parent.parent / revision

TABLES = ("contents", "extractions", "topic_graphs")


def upgrade() -> None:
    path = SQL / f"{op.get_context().dialect.name}.sql"
    for statement in path.read_text(encoding="utf-8").rstrip().removesuffix(";").split(";\n\n"):
        op.execute(statement)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
