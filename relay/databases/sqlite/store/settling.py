"""Write verdicts in batches; scan the deliveries, slice by slice, for those that are blocked without a predecessor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NoReturn

from relay.databases.sqlite.sql import settling as sql
from relay.databases.sqlite.sql import sweeping
from relay.databases.sqlite.store.connection import OwningConnection
from relay.databases.store.records import Batch, Swept
from relay.databases.store.refused import RefusedRow
from relay.databases.store.rows import ID, Parked, Row, by_generation
from relay.databases.store.ruling import as_record, finished_keys
from relay.decide.verdict import GIVEN_UP


class Settling:
    """The writes of a session.

    Args:
        connection: The open file of the session.
        keep_history: Whether settled messages move to the history or are deleted.
    """

    def __init__(self, connection: OwningConnection, *, keep_history: bool) -> None:
        self._db, self._keep_history = connection, keep_history
        self.given_up: Counter[tuple[str, str]] = Counter()

    def settle_plain(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        try:
            count = self._settle_plain(rows, durable=durable)
        except RefusedRow as error:
            return partial(_raise, error)
        return lambda: count

    def _settle_plain(self, rows: Sequence[Row], *, durable: bool) -> int:
        count = 0
        with self._db.writing(durable=durable):
            for generation, alike in by_generation(rows).items():
                of_these = {"ids": [row[ID] for row in alike], "generation": generation}
                if self._keep_history:
                    self._db.run(sql.KEEP_PLAIN, **of_these)
                count += self._db.run(sql.DELETE_PLAIN, **of_these).rowcount
        return count

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        generation_of: dict[str, int | None] = {r.message_id: None for r in batch.ruled}
        generation_of.update(batch.messages)
        with self._db.writing(durable=durable):
            current = self._db.run(sql.IS_CURRENT, messages=list(generation_of.items())).fetchall()
            known = {message_id for (message_id,) in current}
            ruled = [r for r in batch.ruled if r.message_id in known]
            self._db.run(sql.WRITE_RULED, ruled=list(map(as_record, ruled)))
            self._db.run(sql.HOLD_MESSAGES, ids=sorted(known))
            keys = self._keys_of(finished_keys(ruled, self._db.skipping))
            if batch.finishes:
                self._finish(sorted(known))
            pairs = [(r.message_id, r.destination) for r in ruled]
            parked = self._db.run(sql.PARKED_OF, pairs=pairs).fetchall()
            return parked + self._release(keys)

    def discard(self, deliveries: Sequence[tuple[str, str]]) -> list[Parked]:
        with self._db.writing():
            keys = self._keys_of(deliveries)
            self._finish(sorted({message_id for message_id, _ in deliveries}))
            return self._release(keys)

    def _keys_of(self, deliveries: Sequence[tuple[str, str]]) -> list[Row]:
        """Return the deliveries' keys. No delivery waits behind a key that is not text: it would be unreadable, too."""
        with self._db.looking_out():
            return self._db.run(sql.KEYS_OF, pairs=list(deliveries)).fetchall()

    def _finish(self, ids: list[str]) -> None:
        done = [message_id for (message_id,) in self._db.run(sql.DONE, ids=ids)]
        if self._keep_history:
            self._db.run(sql.KEEP, ids=done)
        deleted = self._db.run(sql.DELETE_DELIVERIES, ids=done).fetchall()
        self.given_up.update((name, state) for name, state in deleted if state in GIVEN_UP)
        self._db.run(sql.DELETE_MESSAGES, ids=done)

    def _release(self, keys: Sequence[Row]) -> list[Parked]:
        released: list[Parked] = []
        for destination, key in keys:
            blocks = destination not in self._db.skipping
            released += self._db.run(sql.RELEASE_KEY, destination=destination, key=key, blocks=blocks).fetchall()
        return released

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        with self._db.writing():
            rows = [{"id": id_, "generation": generation, **self._db.constants} for id_, generation in messages]
            self._db.bare.executemany(sql.MARK_UNROUTED, rows).close()

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int]) -> Swept:
        """See `relay.databases.store.contract`; a slice is `ROWS` rows of the table."""
        with self._db.guard():
            (until, count), *_ = self._db.run(sweeping.SLICE_END, at=at).fetchall()
            if not count:
                return Swept(None)
            span = {"at": at, "until": until}
            if misdated := self._db.run(sweeping.MISDATED, **span).fetchall():
                with self._db.writing():
                    self._db.run(sweeping.MAKE_DUE, rowids=[rowid for (rowid,) in misdated])
            return Swept(
                next_at=until if count == sweeping.ROWS else None,
                parked=self._release_orphans(span, shards, fresh),
                discarded=self._db.run(sweeping.DISCARDED, **span).fetchall(),
                holds_keys=bool(self._db.one(sweeping.HOLDS_KEYS, **span)),
            )

    def _release_orphans(self, span: dict[str, Any], shards: Sequence[int], fresh: Collection[int]) -> list[Parked]:
        orphans = self._db.run(sweeping.ORPHANS, **span, shards=list(shards), fresh=list(fresh)).fetchall()
        if not orphans:
            return []
        with self._db.writing():
            return self._db.run(sweeping.RELEASE, orphans=[rowid for (rowid,) in orphans]).fetchall()


def _raise(error: Exception) -> NoReturn:
    raise error
