"""Write verdicts, in batches; scan the deliveries, slice by slice, for those that are blocked without a predecessor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from relay.decide.verdict import GIVEN_UP
from relay.store.contract import Batch, Swept
from relay.store.rows import ID, Parked, Row, by_generation
from relay.store.ruling import as_record, finished_keys
from relay.store.sqlite.connection import OwningConnection
from relay.store.sqlite.sql import settling as sql
from relay.store.sqlite.sql import sweeping


class Settling(OwningConnection):
    """The writes of a session.

    Args:
        keep_history: Whether settled messages move to the history or are deleted.
    """

    def __init__(self, *arguments: Any, keep_history: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._keep_history = keep_history
        self.given_up: Counter[tuple[str, str]] = Counter()

    def settle_plain(self, rows: Sequence[Row], *, durable: bool = True) -> int:
        count = 0
        with self._guard(), self._synchronous("FULL" if durable else "NORMAL"), self._transaction():
            for generation, alike in by_generation(rows).items():
                of_these = {"ids": json.dumps([row[ID] for row in alike]), "generation": generation}
                if self._keep_history:
                    self._run(sql.KEEP_PLAIN, **of_these)
                count += self._run(sql.DELETE_PLAIN, **of_these).rowcount
        return count

    def settle_plain_ahead(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        count = self.settle_plain(rows, durable=durable)
        return lambda: count

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        generation_of: dict[str, int | None] = {r.message_id: None for r in batch.ruled}
        generation_of.update(batch.messages)
        with self._guard(), self._synchronous("FULL" if durable else "NORMAL"), self._transaction():
            current = self._run(sql.IS_CURRENT, messages=json.dumps(list(generation_of.items()))).fetchall()
            known = {message_id for (message_id,) in current}
            ruled = [r for r in batch.ruled if r.message_id in known]
            self._run(sql.WRITE_RULED, ruled=json.dumps(list(map(as_record, ruled))))
            self._run(sql.HOLD_MESSAGES, ids=json.dumps(sorted(known)))
            keys = self._keys_of(finished_keys(ruled, batch.skipping))
            self._finish(sorted(known))
            pairs = json.dumps([(r.message_id, r.destination) for r in ruled])
            parked = self._run(sql.PARKED_OF, pairs=pairs).fetchall()
            return parked + self._release(keys, batch.skipping)

    def discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        with self._guard(), self._transaction():
            keys = self._keys_of(deliveries)
            self._finish(sorted({message_id for message_id, _ in deliveries}))
            return self._release(keys, skipping)

    def _keys_of(self, deliveries: Sequence[tuple[str, str]]) -> list[Row]:
        """Return their keys. No delivery waits behind a key that is not text: it would be unreadable, too."""
        with self._looking_out():
            return self._run(sql.KEYS_OF, pairs=json.dumps(list(deliveries))).fetchall()

    def _finish(self, ids: Sequence[str]) -> None:
        done = json.dumps([message_id for (message_id,) in self._run(sql.DONE, ids=json.dumps(ids))])
        if self._keep_history:
            self._run(sql.KEEP, ids=done)
        deleted = self._run(sql.DELETE_DELIVERIES, ids=done).fetchall()
        self.given_up.update((name, state) for name, state in deleted if state in GIVEN_UP)
        self._run(sql.DELETE_MESSAGES, ids=done)

    def _release(self, keys: Sequence[Row], skipping: Sequence[str]) -> list[Parked]:
        released: list[Parked] = []
        for destination, key in keys:
            blocks = destination not in skipping
            released += self._run(sql.RELEASE_KEY, destination=destination, key=key, blocks=blocks).fetchall()
        return released

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        with self._guard(), self._transaction():
            rows = [{"id": id_, "generation": generation, **self._constants} for id_, generation in messages]
            self._db.executemany(sql.MARK_UNROUTED, rows).close()

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int], skipping: Sequence[str]) -> Swept:
        """See `relay.store.contract`; a slice is `ROWS` rows of the table."""
        with self._guard():
            (until, count), *_ = self._run(sweeping.SLICE_END, at=at).fetchall()
            if not count:
                return Swept(None)
            span = {"at": at, "until": until}
            return Swept(
                next_at=until if count == sweeping.ROWS else None,
                parked=self._release_orphans(span, shards, fresh, skipping),
                discarded=self._run(sweeping.DISCARDED, **span).fetchall(),
                holds_keys=bool(self._one(sweeping.HOLDS_KEYS, **span)),
            )

    def _release_orphans(
        self, span: dict[str, Any], shards: Sequence[int], fresh: Collection[int], skipping: Sequence[str]
    ) -> list[Parked]:
        orphans = self._run(
            sweeping.ORPHANS,
            shards=json.dumps(list(shards)),
            fresh=json.dumps(list(fresh)),
            skipping=json.dumps(list(skipping)),
            **span,
        ).fetchall()
        if not orphans:
            return []
        with self._transaction():
            return self._run(sweeping.RELEASE, orphans=json.dumps([rowid for (rowid,) in orphans])).fetchall()
