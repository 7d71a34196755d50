"""The record of operators' actions: who did what to how many messages, when and why.

Rows are added and never changed: a relay's role has no right to change them. The database records the time and the
login role. The user's name comes from this process and its environment (`LOGNAME`), so it can be forged.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables

_ACTOR: ContextVar[str | None] = ContextVar("outbox_actor", default=None)


class Action:
    """One action of an operator.

    It may take many transactions. The first transaction records the action, and each one records its part, so an
    interrupted action is on record with the part that was done. An action that changed nothing leaves no row.

    Args:
        name: The action, as the command line calls it: ``"dead retry"``.
        target: The object of the action: a destination, a filter.
        reason: The reason, in the operator's words.
    """

    def __init__(self, name: str, target: Mapping[str, Any], *, reason: str | None = None) -> None:
        self.name, self.target, self.reason, self.actor = name, dict(target), reason, this_user()
        self.count = 0
        self.number: int | None = None

    def add(self, connection: sa.Connection, count: int) -> int:
        """Record ``count`` more changes in this transaction; return the action's number, which is unique."""
        audit = tables().audit
        self.count += count
        values = {"actor": self.actor, "action": self.name, "target": self.target, "reason": self.reason}
        inserted = connection.scalar(
            sa.insert(audit).values(count=count, part_of=self.number, **values).returning(audit.c.id)
        )
        assert inserted is not None
        if self.number is None:
            self.number = inserted
        return self.number


def this_user() -> str:
    """Return the acting user: the name from `acting_as`, or the user and host of this process, such as ``ada@host``."""
    if (named := _ACTOR.get()) is not None:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Record the actions that begin inside this context under a name.

    Args:
        actor: The person on whose behalf the program acts, as far as it knows.
    """
    token = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(token)


@dataclass(frozen=True)
class AuditEntry:
    """One recorded action: who did what to how many messages, when and why.

    Args:
        at: When the action began, by the database's clock.
        role: The database role that logged in; ``None`` on SQLite.
        actor: The user and the host, as the acting process knew them.
    """

    at: datetime
    role: str | None
    actor: str
    action: str
    target: dict[str, Any]
    count: int
    reason: str | None


def record(connection: sa.Connection, *, limit: int) -> list[AuditEntry]:
    """Return the latest actions, newest first."""
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
