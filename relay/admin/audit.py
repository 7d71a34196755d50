"""What was done by hand, on record: who, when, what, how many and why.

Rows are added and never changed: a relay's role has no right to. The database says when, and which role had logged in;
the name of the user is what this process believes, and may be told (`LOGNAME`).
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

    It may take many transactions. Each of them writes what it did, as a part of the action that the first one began.
    So an action that was interrupted is on record with what it did. One that changed nothing leaves no row.

    Args:
        name: What was done, as the command line calls it: ``"dead retry"``.
        target: To what: a destination, a filter.
        reason: Why, in the operator's words.
    """

    def __init__(self, name: str, target: Mapping[str, Any], *, reason: str | None = None) -> None:
        self.name, self.target, self.reason, self.actor = name, dict(target), reason, this_user()
        self.count = 0
        self.number: int | None = None

    def add(self, connection: sa.Connection, count: int) -> int:
        """So many more, in this transaction; returns the action's number, which no other action has."""
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
    """Return who acts: the user whom `acting_as` names, else who runs this process, and where: ``ada@host``."""
    if (named := _ACTOR.get()) is not None:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Have the actions that begin inside of it stand in the record under this name.

    Args:
        actor: Who acts, as far as a program that acts for several people knows.
    """
    token = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(token)


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
