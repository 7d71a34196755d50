"""Choose messages by id, key, type, subject, destination and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.admin.access.queries import matches, since
from relay.decide.verdict import State


class Filters:
    """Conditions, all of them optional."""

    def as_dict(self) -> dict[str, Any]:
        """Return the given conditions by name, in a form that JSON can hold, for the record."""
        values = {name.rstrip("_"): value for name, value in vars(self).items()}
        return {name: _plain(value) for name, value in values.items() if value not in (None, (), False)}


@dataclass(frozen=True)
class Choice(Filters):
    """A choice of messages. All given conditions must hold.

    Args:
        ids: With one of these ids.
        key: With exactly this ordering key.
        type_: With this event type; ``*`` stands for any text.
        subject: With this subject; ``*`` stands for any text.
        destination: For this destination.
        since: Created at this instant or later; in the history: settled at this instant or later.
        until: Created before this instant; in the history: settled before this instant.
        is_unrouted: That no subscription wants.
    """

    ids: tuple[str, ...] = ()
    key: str | None = None
    type_: str | None = None
    subject: str | None = None
    destination: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    is_unrouted: bool = False


def conditions(
    connection: sa.Connection, which: Choice, table: sa.Table, at: sa.ColumnElement[Any]
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions for rows of a table of messages, except the destination, which no column holds.

    Args:
        connection: To the outbox's database.
        which: The choice of messages.
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
    if which.is_unrouted:
        yield c.state == State.UNROUTED


def _plain(value: Any) -> Any:
    match value:
        case tuple():
            return list(value)
        case datetime():
            return value.isoformat()
    return value
