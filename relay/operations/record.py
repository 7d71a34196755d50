"""What operators did, read back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables


@dataclass(frozen=True)
class AuditEntry:
    """One action: who, when, what, to what, how many and why."""

    at: datetime
    actor: str
    action: str
    target: dict[str, Any]
    count: int
    reason: str | None


def record(connection: sa.Connection, *, limit: int) -> list[AuditEntry]:
    """The latest actions, the latest first."""
    a = tables().audit.c
    query = sa.select(a.at, a.actor, a.action, a.target, a.count, a.reason).order_by(a.id.desc()).limit(limit)
    return [AuditEntry(*row) for row in connection.execute(query)]
