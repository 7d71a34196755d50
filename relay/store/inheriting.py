"""Decode how the last owner left a shard, from the shard's row; the same for both databases."""

from __future__ import annotations

from datetime import UTC, datetime

from relay.store.contract import Inherited
from relay.store.rows import Row


def inherited_by(relay_id: str, row: Row, present: frozenset[str]) -> Inherited:
    """Return the content of a row (shard, dirty, owner, started, now), as it was before the shard was taken."""
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
