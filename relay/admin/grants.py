"""The GRANT statements for the three roles on PostgreSQL: the migrator, the worker and the relay."""

from __future__ import annotations

from collections.abc import Sequence

from relay.platform import rights


def grants(
    *,
    schema: str | None = None,
    worker: str = "outbox_worker",
    relay: str = "outbox_relay",
    migrator: str | None = None,
    content: bool = True,
) -> str:
    """Return the GRANT statements, to be run by the owner of the schema after the migrations.

    Args:
        schema: The outbox's schema; ``None`` is ``public``.
        worker: The role of processes that emit; it may only write messages.
        relay: The role of relays, and of operators.
        migrator: The role that runs ``outbox db upgrade``, if it is not the owner of the schema.
        content: Include the rights of the reference worker and the baseline listener on the content tables.
    """
    schema = schema or "public"
    parts = [_migrator(schema, migrator)] if migrator else []
    parts += [_worker(schema, worker, content=content), _relay(schema, relay, content=content)]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _migrator(schema: str, role: str) -> list[str]:
    comment = "-- before the first `outbox db upgrade`: the role that runs it owns the objects that it creates"
    return [comment, *_lines(rights.MIGRATOR, schema, role)]


def _worker(schema: str, role: str, *, content: bool) -> list[str]:
    return [
        "-- workers: write a message, in Python or with outbox_emit(), and read nothing back",
        *_lines(rights.WORKER, schema, role),
        "-- only for consumers of their own that use outbox.once",
        *_lines(rights.CONSUMER, schema, role),
        "-- only for `outbox emit` and `outbox extract`, which read the version of the schema first",
        *_lines(rights.COMMANDS, schema, role),
        *(
            ["-- only for the reference worker, `outbox extract`", *_lines(rights.EXTRACT, schema, role)]
            if content
            else []
        ),
    ]


def _relay(schema: str, role: str, *, content: bool) -> list[str]:
    return [
        "-- relays, `outbox serve`, `outbox consume` and operators: read, settle, keep the history, wake up",
        *_lines(rights.RELAY, schema, role),
        *(["-- only for the baseline listener", *_lines(rights.BASELINE, schema, role)] if content else []),
    ]


def _lines(needs: Sequence[rights.Right], schema: str, role: str) -> list[str]:
    """Return the statements that grant these rights."""
    return [right.grant(schema, role) + ";" for right in needs]
