"""Scan the deliveries, slice by slice, for those that are blocked without a predecessor."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from relay.store.contract import Swept
from relay.store.postgres.connection import OwningConnection
from relay.store.postgres.sql import sweeping as sql


class Sweeping(OwningConnection):
    """The sweep of a session; a slice is `PAGES` pages of the table."""

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int], skipping: Sequence[str]) -> Swept:
        end = at + sql.PAGES
        with self._guard():
            row = self._run(
                sql.SWEEP,
                begin=f"({at},0)",
                end=f"({end},0)",
                shards=list(shards),
                fresh=list(fresh),
                skipping=list(skipping),
            ).fetchone()
        assert row is not None
        pages, holds_keys, released, discarded = row
        parked = json.loads(released)
        self._own_transactions += {txid for *_, txid in parked}
        return Swept(
            next_at=end if end < pages else None,
            parked=[(destination, shard, position) for destination, shard, position, _ in parked],
            discarded=[(message_id, destination) for message_id, destination in json.loads(discarded)],
            holds_keys=holds_keys,
        )
