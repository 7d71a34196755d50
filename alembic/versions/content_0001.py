"""The content tables: contents, extractions, and the topic graphs built from them.

Plain SQL for both databases: only the spelling of types and defaults differs. Everything is created without a schema
name, in the first schema of the `search_path`, like the outbox.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from outbox.errors import SchemaError

revision = "content_0001"
down_revision = None
branch_labels = ("content",)
depends_on = None

TABLES = ("contents", "extractions", "topic_graphs")

SPELLING = {
    "postgresql": {
        "uuid": "uuid",
        "new_uuid": "gen_random_uuid()",
        "instant": "timestamptz",
        "now": "clock_timestamp()",
        "json": "jsonb",
        "json_type": "jsonb_typeof",
    },
    "sqlite": {
        "uuid": "CHAR(32)",
        "new_uuid": "(lower(hex(randomblob(16))))",
        "instant": "DATETIME",
        "now": "(strftime('%Y-%m-%d %H:%M:%f', 'now'))",
        "json": "JSON",
        "json_type": "json_type",
    },
}

CREATE = [
    """
    CREATE TABLE contents (
        id text NOT NULL PRIMARY KEY,
        title text NOT NULL,
        source text NOT NULL,
        media_type text NOT NULL,
        sha256 text NOT NULL,
        created_at {instant} NOT NULL DEFAULT {now},
        updated_at {instant} NOT NULL DEFAULT {now},
        CONSTRAINT contents_has_id CHECK (id <> ''),
        CONSTRAINT contents_sha256_is_hex CHECK (length(sha256) = 64)
    )
    """,
    """
    CREATE TABLE extractions (
        id {uuid} NOT NULL PRIMARY KEY DEFAULT {new_uuid},
        content_id text NOT NULL REFERENCES contents (id),
        topics {json} NOT NULL,
        created_at {instant} NOT NULL DEFAULT {now},
        CONSTRAINT extractions_of_content UNIQUE (id, content_id),
        CONSTRAINT extractions_topics_is_array CHECK ({json_type}(topics) = 'array')
    )
    """,
    "CREATE INDEX extractions_latest ON extractions (content_id, created_at)",
    """
    CREATE TABLE topic_graphs (
        id {uuid} NOT NULL PRIMARY KEY DEFAULT {new_uuid},
        content_id text NOT NULL REFERENCES contents (id),
        extraction_id {uuid} NOT NULL,
        type text NOT NULL,
        graph {json} NOT NULL,
        node_count integer NOT NULL,
        edge_count integer NOT NULL,
        created_at {instant} NOT NULL DEFAULT {now},
        FOREIGN KEY (extraction_id, content_id) REFERENCES extractions (id, content_id),
        CONSTRAINT topic_graphs_has_type CHECK (type <> ''),
        CONSTRAINT topic_graphs_counts_agree
            CHECK (node_count >= 0 AND edge_count BETWEEN 0 AND node_count * (node_count - 1) / 2),
        CONSTRAINT topic_graphs_graph_is_object CHECK ({json_type}(graph) = 'object')
    )
    """,
    "CREATE UNIQUE INDEX topic_graphs_one_baseline ON topic_graphs (content_id) WHERE type = 'BASELINE'",
]


def refuse_tables_of_others() -> None:
    """Refuse to migrate if a table exists: none of them is ours yet, so it belongs to the host application."""
    if context.is_offline_mode():
        return
    inspector = sa.inspect(op.get_bind())
    taken = [table for table in TABLES if inspector.has_table(table)]
    if taken:
        raise SchemaError(
            f"this database already has {_listed(taken)}, which the outbox did not create, so "
            "nothing was changed. To keep your own and install only the outbox, run: "
            "outbox db upgrade --only outbox"
        )


def _listed(tables: list[str]) -> str:
    return f"{'a table' if len(tables) == 1 else 'tables'} named {', '.join(tables)}"


def upgrade() -> None:
    refuse_tables_of_others()
    spelling = SPELLING[op.get_context().dialect.name]
    for statement in CREATE:
        op.execute(statement.format(**spelling))


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
