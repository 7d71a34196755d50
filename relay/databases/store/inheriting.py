"""Decode from the shards' rows how the last owners left their shards; this is the same for every database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from relay.databases.store.rows import Row
from relay.decide.failures.crashes import Record


@dataclass(frozen=True, slots=True)
class Inherited:
    """The state in which the last owner left a shard.

    Args:
        shard: The shard.
        owner: Its last owner; ``None`` if that owner handed it back.
        was_mine: Whether the last owner was this process, in an earlier session.
        is_dirty: Whether another relay owned it and did not hand it back.
        record: The content of ``started`` (see `relay.decide.failures.crashes`).
        present: The messages of the record that are not settled.
        at: When this relay took it, by the database's clock.
    """

    shard: int
    owner: str | None
    was_mine: bool
    is_dirty: bool
    record: str | None
    present: frozenset[str]
    at: datetime


def inherited_by(relay_id: str, rows: Sequence[Row], present: Callable[[list[str]], Iterable[Row]]) -> list[Inherited]:
    """Return the content of rows (shard, dirty, owner, started, now), as they were before the shards were taken.

    Args:
        relay_id: The relay that has taken them.
        rows: The rows; ``started`` and ``now`` are text.
        present: Given ids of messages, returns the ids of those that are not settled.
    """
    ids = list({id_ for _, _, _, record, _ in rows for id_ in Record.parse(record).ids})
    found = frozenset(id_ for (id_,) in present(ids)) if ids else frozenset()
    return [_inherited(relay_id, row, found) for row in rows]


def _inherited(relay_id: str, row: Row, present: frozenset[str]) -> Inherited:
    shard, dirty, owner, record, now = row
    at = datetime.fromisoformat(now)
    was_mine = bool(dirty) and owner == relay_id
    return Inherited(
        shard=shard,
        owner=owner,
        was_mine=was_mine,
        is_dirty=bool(dirty) and not was_mine,
        record=record,
        present=present,
        at=at if at.tzinfo else at.replace(tzinfo=UTC),
    )
