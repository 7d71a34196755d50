"""Claim shards: by a lock that ends with the session, and by a row that only a relay's role can write.

Advisory locks know no privileges: any login of the database may hold the lock of a shard. So a lock alone makes no
owner. The row of the shard names the relay that owns it, by its number. That relay is alive for as long as its session
holds a presence lock, whose key is random and stands in its own row. A shard is free when its row names no relay that
is alive. The relay still tries the lock of the shard first: if rows were deleted, two relays still cannot own one
shard.

See docs/decisions/0015.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import structlog

from relay.store.postgres.executor import Answer
from relay.store.postgres.sql import ownership as sql
from relay.store.rows import Row

log = structlog.get_logger("relay")


class Holder(NamedTuple):
    """A session that holds the lock of a shard."""

    shard: int
    pid: int | None  # a prepared transaction has none
    role: str | None
    application: str | None
    is_relay: bool
    may_own: bool

    @property
    def is_stranger(self) -> bool:
        """Whether its role has no right to own shards."""
        return not self.is_relay and not self.may_own


class Claims:
    """The claims of one session.

    Args:
        run: Runs a statement on the owning connection.
        key: The class of our locks.
        number: The session's number among the relays.
        owner: The relay's id.
    """

    def __init__(self, run: Callable[..., Answer], *, key: int, number: int, owner: str) -> None:
        self._run, self._key, self._number, self._owner = run, key, number, owner
        self._locked: set[int] = set()
        self._looks: Counter[int | None] = Counter()

    def claim(self, wanted: Sequence[int]) -> tuple[list[int], list[Row]]:
        """Take these shards, as far as they are free.

        Returns:
            The shards that were taken, and their rows as the last owners left them.
        """
        locked = {shard for (shard,) in self._run(sql.LOCK_SHARDS, shards=wanted, key=self._key)}
        self._locked |= locked
        usurped = self._usurped([s for s in wanted if s not in locked])
        claimed = [s for s in wanted if s in locked or s in usurped]
        if not claimed:
            return [], []
        rows = self._mark(claimed)
        marked = {shard for shard, *_ in rows}
        ours = marked | self._without_row(locked - marked)
        self._unlock(locked - ours)
        return [s for s in claimed if s in ours], rows

    def release(self, shards: Collection[int]) -> None:
        """Hand these shards back, marked clean."""
        self._run(sql.MARK_GIVEN, shards=sorted(shards), number=self._number)
        self._unlock(shards)

    def _mark(self, shards: Sequence[int]) -> list[Row]:
        return self._run(
            sql.MARK_TAKEN, shards=sorted(shards), owner=self._owner, number=self._number, key=self._key
        ).fetchall()

    def _usurped(self, shards: Sequence[int]) -> set[int]:
        """Return the shards whose locks only strangers hold: a relay may own them all the same."""
        if not shards:
            return set()
        holders = [Holder(*row) for row in self._run(sql.HOLDERS, shards=shards, key=self._key)]
        self._name([holder for holder in holders if not holder.is_relay])
        return {h.shard for h in holders} - {h.shard for h in holders if not h.is_stranger}

    def _name(self, holders: Sequence[Holder]) -> None:
        """Log once each session that holds a lock that a relay needs; one of a relay's role only at the second look."""
        for pid in {h.pid for h in holders}:
            self._looks[pid] += 1
            held = [h for h in holders if h.pid == pid]
            if self._looks[pid] == (1 if held[0].is_stranger else 2):
                log.warning(
                    "lock_held_by_no_relay",
                    backend_pid=pid,
                    role=held[0].role,
                    application=held[0].application,
                    shards=len(held),
                    owned_all_the_same=held[0].is_stranger,
                    hint=f"SELECT pg_terminate_backend({pid})" if pid else "ROLLBACK PREPARED, see pg_prepared_xacts",
                )

    def _without_row(self, locked: Collection[int]) -> set[int]:
        """Return the shards that have no row: for them the lock alone is enough."""
        if not locked:
            return set()
        return set(locked) - {shard for (shard,) in self._run(sql.EXISTING, shards=list(locked))}

    def _unlock(self, shards: Iterable[int]) -> None:
        locked = self._locked.intersection(shards)
        if locked:
            self._run(sql.UNLOCK_SHARDS, shards=list(locked), key=self._key)
            self._locked -= locked
