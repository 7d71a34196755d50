"""Scan the deliveries, slice by slice, for those that are blocked without a predecessor."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from relay.store.contract import Swept
from relay.store.rows import Parked
from relay.store.sqlite.connection import OwningConnection
from relay.store.sqlite.sql import sweeping as sql


class Sweeping(OwningConnection):
    """The sweep of a session; a slice is `ROWS` rows of the table."""

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int], skipping: Sequence[str]) -> Swept:
        with self._guard():
            (until, count), *_ = self._run(sql.SLICE_END, at=at).fetchall()
            if not count:
                return Swept(None)
            span = {"at": at, "until": until}
            return Swept(
                next_at=until if count == sql.ROWS else None,
                parked=self._release_orphans(span, shards, fresh, skipping),
                discarded=self._run(sql.DISCARDED, **span).fetchall(),
                holds_keys=bool(self._one(sql.HOLDS_KEYS, **span)),
            )

    def _release_orphans(
        self, span: dict[str, Any], shards: Sequence[int], fresh: Collection[int], skipping: Sequence[str]
    ) -> list[Parked]:
        orphans = self._run(
            sql.ORPHANS,
            shards=json.dumps(list(shards)),
            fresh=json.dumps(list(fresh)),
            skipping=json.dumps(list(skipping)),
            **span,
        ).fetchall()
        if not orphans:
            return []
        with self._transaction():
            return self._run(sql.RELEASE, orphans=json.dumps([rowid for (rowid,) in orphans])).fetchall()
