"""Choosing messages: by id, key, type, subject, destination and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.admin.access.queries import matches, since


@dataclass(frozen=True)
class Choice:
    """Which messages. Everything that is given has to hold.

    Args:
        ids: These.
        key: Of exactly this ordering key.
        type_: Of this event type; ``*`` stands for anything.
        subject: With this subject; ``*`` stands for anything.
        destination: For this destination.
        since: Created at this instant or later; of what is in the history: settled.
        until: Created before this instant; of what is in the history: settled.
    """

    ids: tuple[str, ...] = ()
    key: str | None = None
    type_: str | None = None
    subject: str | None = None
    destination: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is given, for the record."""
        given = {name.rstrip("_"): value for name, value in vars(self).items() if value not in (None, ())}
        return {name: plain(value) for name, value in given.items()}


def conditions(
    connection: sa.Connection, which: Choice, table: sa.Table, at: sa.ColumnElement[Any]
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield what rows of a table of messages have to fulfil; their destinations, no column tells.

    Args:
        connection: To the outbox's database.
        which: The messages.
        table: ``outbox_message`` or ``outbox_history``.
        at: The column to which ``since`` and ``until`` refer.
    """
    c = table.c
    if which.ids:
        yield c.id.in_(which.ids)
    if which.key is not None:
        yield c.ordering_key == which.key
    if which.type_ is not None:
        yield matches(c.type, which.type_)
    if which.subject is not None:
        yield matches(c.subject, which.subject)
    if which.since is not None:
        yield since(connection, at, which.since)
    if which.until is not None:
        yield ~since(connection, at, which.until)


def plain(value: Any) -> Any:
    """Return it as the record keeps it, which is JSON."""
    match value:
        case tuple():
            return list(value)
        case datetime():
            return value.isoformat()
    return value
