"""The rights that each of three roles needs on PostgreSQL: who migrates, who emits, who delivers."""

from __future__ import annotations

from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql import psycopg

_DIALECT: Dialect = psycopg.dialect()  # type: ignore[no-untyped-call]

RELAY_TABLES = (
    "outbox_message",
    "outbox_delivery",
    "outbox_history",
    "outbox_destination",
    "outbox_relay",
    "outbox_shard",
    "outbox_audit",
    "inbox_message",
)


def grants(
    *,
    schema: str | None = None,
    worker: str = "outbox_worker",
    relay: str = "outbox_relay",
    migrator: str | None = None,
    content: bool = True,
) -> str:
    """The GRANT statements, to be run by the owner of the schema once the migrations have been.

    Args:
        schema: The outbox's schema; ``None`` is ``public``.
        worker: The role of processes that emit; all it may do with a message is write it.
        relay: The role of relays.
        migrator: The role that runs ``outbox db upgrade``, if it is not the owner of the schema.
        content: Include what the baseline listener, which runs in the relay, needs of the content tables.
    """
    inside = _quoted(schema or "public")
    parts = [_migrator(inside, _quoted(migrator))] if migrator else []
    parts += [_worker(inside, _quoted(worker)), _relay(inside, _quoted(relay), content=content)]
    return "\n\n".join(parts) + "\n"


def _migrator(schema: str, role: str) -> str:
    return f"""\
-- before the first `outbox db upgrade`: whoever runs it owns what it creates
GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};"""


def _worker(schema: str, role: str) -> str:
    return f"""\
-- workers: write a message, in Python or with outbox_emit(), and read nothing back
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT INSERT ON {schema}.outbox_message TO {role};
GRANT EXECUTE ON FUNCTION {schema}.outbox_emit(text, jsonb, text, text, jsonb, timestamptz, uuid) TO {role};
GRANT EXECUTE ON FUNCTION {schema}.outbox_uuid7() TO {role};"""


def _relay(schema: str, role: str, *, content: bool) -> str:
    tables = ", ".join(f"{schema}.{table}" for table in RELAY_TABLES)
    lines = [
        "-- relays: read, settle, keep the history, wake up",
        f"GRANT USAGE ON SCHEMA {schema} TO {role};",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role};",
        f"GRANT SELECT ON {schema}.outbox_meta TO {role};",
        f"GRANT SELECT, UPDATE ON SEQUENCE {schema}.outbox_wake TO {role};",
        f"GRANT EXECUTE ON FUNCTION {schema}.outbox_add_partition(date) TO {role};",
        f"GRANT EXECUTE ON FUNCTION {schema}.outbox_drop_partition(date) TO {role};",
    ]
    if content:
        lines += [
            "-- the baseline listener, which runs in the relay",
            f"GRANT SELECT ON {schema}.contents, {schema}.extractions TO {role};",
            f"GRANT SELECT, INSERT ON {schema}.topic_graphs TO {role};",
        ]
    return "\n".join(lines)


def _quoted(name: str) -> str:
    return str(_DIALECT.identifier_preparer.quote(name))
