"""Writing verdicts, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import psycopg

from relay.entry import Row
from relay.store.contract import REGISTRY_LOCK, Batch, Parked
from relay.store.postgres import settling_sql as sql
from relay.store.postgres.connection import OwningConnection, commit
from relay.store.ruling import as_json, finished_keys

T = TypeVar("T")


class Settling(OwningConnection):
    """What a session writes.

    Args:
        keep_history: Whether what was delivered moves to history or is deleted.
    """

    def __init__(self, *arguments: Any, keep_history: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._keep_history = keep_history

    def settle_plain(self, messages: Sequence[tuple[str, int]], *, durable: bool = True) -> int:
        statement = sql.SETTLE_PLAIN if self._keep_history else sql.SETTLE_PLAIN_KEEPING_NONE
        ids_of: dict[int, list[str]] = {}  # by generation; nearly always there is one
        for id_, generation in messages:
            ids_of.setdefault(generation, []).append(id_)
        count = 0
        for generation, ids in ids_of.items():
            parameters = {"ids": ids, "generation": generation, "commit": commit(durable=durable)}
            count += self._with_partition(partial(self._run, statement, **parameters)).rowcount
        return count

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        return self._with_partition(lambda: self._settle(batch, durable=durable))

    def _settle(self, batch: Batch, *, durable: bool) -> list[Parked]:
        generation_of: dict[str, int | None] = {r.message_id: None for r in batch.ruled}
        generation_of.update(batch.messages)
        with self._owner_transaction(durable=durable):
            ids = self._lock(generation_of)
            known = set(ids)
            ruled = [r for r in batch.ruled if r.message_id in known]
            keyed = finished_keys(ruled, batch.skipping)
            self._run(sql.WRITE_RULED, ruled=as_json(ruled))
            self._run(sql.HOLD_MESSAGES, ids=ids)
            keys = self._keys_of(keyed) if keyed else []
            self._run(sql.FINISH, ids=ids, keep=self._keep_history)
            parked = self._run(sql.PARKED_OF, ids=ids).fetchall()
            return parked + self._release(keys, batch.skipping)

    def discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        return self._with_partition(lambda: self._discard(deliveries, skipping))

    def _discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        with self._owner_transaction():
            ids = self._lock({message_id: None for message_id, _ in deliveries})
            keys = self._keys_of(deliveries)
            self._run(sql.FINISH, ids=ids, keep=self._keep_history)
            return self._release(keys, skipping)

    def _lock(self, generation_of: Mapping[str, int | None]) -> list[str]:
        ids = sorted(generation_of)
        rows = self._run(sql.LOCK_MESSAGES, ids=ids, generations=[generation_of[id_] for id_ in ids])
        return [row[0] for row in rows.fetchall()]

    def _keys_of(self, deliveries: Sequence[tuple[str, str]]) -> Sequence[Row]:
        ids, destinations = [d[0] for d in deliveries], [d[1] for d in deliveries]
        return self._run(sql.KEYS_OF, ids=ids, destinations=destinations).fetchall()

    def _release(self, keys: Sequence[Row], skipping: Sequence[str]) -> list[Parked]:
        if not keys:
            return []
        return self._run(
            sql.RELEASE_KEYS,
            destinations=[k[0] for k in keys],
            keys=[k[1] for k in keys],
            skipping=list(skipping),
        ).fetchall()

    def _with_partition(self, write: Callable[[], T]) -> T:
        """Write; if today's partition of the history was missing, make it and write once more."""
        with self._guard():
            try:
                return write()
            except psycopg.errors.CheckViolation:
                self._run("SELECT outbox_add_partition((clock_timestamp() AT TIME ZONE 'UTC')::date)")
                return write()

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        with self._guard(), self._connection.transaction():
            self._run(sql.SHARE_REGISTRY, key=REGISTRY_LOCK)
            self._run(sql.MARK_UNROUTED, ids=[m[0] for m in messages], generations=[m[1] for m in messages])
