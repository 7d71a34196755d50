"""What operators did, read back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables


@dataclass(frozen=True)
class AuditEntry:
    """One action: who, when, what, to what, how many and why.

    Args:
        at: When it began, by the database's clock.
        role: The role that had logged in to the database; ``None`` on SQLite.
        actor: The user and the host, as the process that did it was told.
    """

    at: datetime
    role: str | None
    actor: str
    action: str
    target: dict[str, Any]
    count: int
    reason: str | None


def record(connection: sa.Connection, *, limit: int) -> list[AuditEntry]:
    """The latest actions, the latest first."""
    audit, part = tables().audit, tables().audit.alias("part")
    a = audit.c
    more = sa.select(sa.func.coalesce(sa.func.sum(part.c.count), 0)).where(part.c.part_of == a.id).scalar_subquery()
    count = sa.cast(a.count + more, sa.BigInteger)
    query = (
        sa.select(a.at, a.role, a.actor, a.action, a.target, count, a.reason)
        .where(a.part_of.is_(None))
        .order_by(a.id.desc())
        .limit(limit)
    )
    return [AuditEntry(*row) for row in connection.execute(query)]
