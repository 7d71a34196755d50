"""The GRANT statements for the three roles on PostgreSQL: the migrator, the worker and the relay."""

from __future__ import annotations

from relay.databases import rights


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
    parts = [
        (
            "before the first `outbox db upgrade`: the role that runs it owns the objects that it creates",
            migrator,
            rights.MIGRATOR,
        ),
        ("workers: write a message, in Python or with outbox_emit(), and read nothing back", worker, rights.WORKER),
        ("only for consumers of their own that use outbox.once", worker, rights.CONSUMER),
        (
            "only for `outbox emit` and `outbox extract`, which read the version of the schema first",
            worker,
            rights.COMMANDS,
        ),
        ("only for the reference worker, `outbox extract`", worker if content else None, rights.EXTRACT),
        (
            "relays, `outbox serve`, `outbox consume` and operators: read, settle, keep the history, wake up",
            relay,
            rights.RELAY,
        ),
        ("only for the baseline listener", relay if content else None, rights.BASELINE),
    ]
    blocks = (
        [f"-- {comment}", *(f"{right.grant(schema or 'public', role)};" for right in needs)]
        for comment, role, needs in parts
        if role is not None
    )
    return "\n\n".join(map("\n".join, blocks)) + "\n"
