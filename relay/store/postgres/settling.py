"""Write verdicts, in batches; scan the deliveries, slice by slice, for those that are blocked without a predecessor."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import psycopg

from relay.platform.deadlock_retry import pauses_s
from relay.store.contract import Batch, Damaged, Ruled, Swept
from relay.store.postgres.connection import OwningConnection, commit, sentence
from relay.store.postgres.sql import settling as sql
from relay.store.postgres.sql import sweeping
from relay.store.rows import ADDRESS, ID, Parked, Row, by_generation
from relay.store.ruling import as_record, finishable_messages, finished_keys

T = TypeVar("T")


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
        return self.settle_plain_ahead(rows, durable=durable)()

    def settle_plain_ahead(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        with self._guard():
            counted = [self._settle_alike(alike, g, durable=durable) for g, alike in by_generation(rows).items()]
        return lambda: sum(count() for count in counted)

    def _settle_alike(self, rows: Sequence[Row], generation: int, *, durable: bool) -> Callable[[], int]:
        """Have the rows settled by their addresses; rows that have moved are settled when the count is asked for."""
        here, moved = sql.SETTLE_PLAIN, sql.SETTLE_MOVED
        if not self._keep_history:
            here, moved = sql.SETTLE_PLAIN_KEEPING_NONE, sql.SETTLE_MOVED_KEEPING_NONE
        ids, addresses = [row[ID] for row in rows], [row[ADDRESS] for row in rows]
        common = {"ids": ids, "generation": generation, "commit": commit(durable=durable)}
        asked = self._run_ahead(here, addresses=addresses, **common)

        def count() -> int:
            again = partial(self._run, here, addresses=addresses, **common)
            settled = self._insisting(partial(self._executor.answer, asked), again).rowcount
            if settled < len(rows):
                settled += self._insisting(partial(self._run, moved, **common)).rowcount
            return settled

        return count

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        return self._insisting(lambda: self._settle(batch, durable=durable))

    def _settle(self, batch: Batch, *, durable: bool) -> list[Parked]:
        generation_of: dict[str, int | None] = {r.message_id: None for r in batch.ruled}
        generation_of.update(batch.messages)
        ruled = [r for r in batch.ruled if not r.is_unknown]
        finishable, keyed = finishable_messages(batch.ruled), finished_keys(ruled, batch.skipping)
        if not finishable and not keyed:  # no other statement follows: this one is the transaction
            return self._write(generation_of, ruled, durable=durable)[1]
        with self._transaction():
            known, parked = self._write(generation_of, ruled, durable=durable)
            unknown = [r for r in batch.ruled if r.is_unknown and r.message_id in known]
            if unknown:
                parked += self._write(dict.fromkeys(known), unknown, durable=durable, statement=sql.WRITE_UNKNOWN)[1]
            keys = self._keys_of([pair for pair in keyed if pair[0] in known])
            self._finish(finishable & known)
            return parked + self._release(keys, batch.skipping)

    def discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        return self._insisting(lambda: self._discard(deliveries, skipping))

    def _discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        with self._transaction():
            known, _ = self._write(dict.fromkeys(id_ for id_, _ in deliveries), [], durable=True)
            keys = self._keys_of(deliveries)
            self._finish(known)
            return self._release(keys, skipping)

    def _write(
        self,
        generation_of: Mapping[str, int | None],
        ruled: Sequence[Ruled],
        *,
        durable: bool,
        statement: str = sql.WRITE_RULED,
    ) -> tuple[set[str], list[Parked]]:
        """Lock messages and write verdicts; return the messages that exist, and the deliveries parked now."""
        ruled_of: dict[str, list[dict[str, Any]]] = {id_: [] for id_ in sorted(generation_of)}
        for r in ruled:
            ruled_of[r.message_id].append(as_record(r))
        messages = json.dumps([{"id": k, "generation": generation_of[k], "ruled": v} for k, v in ruled_of.items()])
        row = self._run(statement, messages=messages, commit=commit(durable=durable)).fetchone()
        assert row is not None
        number, known, parked = row
        self._insist(number is not None)
        self._own_transactions.append(number)
        return set(known), [(destination, shard, position) for destination, shard, position in json.loads(parked)]

    def _finish(self, ids: Collection[str]) -> None:
        if ids:
            self.given_up.update(self._run(sql.FINISH, ids=sorted(ids), keep=self._keep_history).fetchall())

    def _keys_of(self, deliveries: Sequence[tuple[str, str]]) -> Sequence[Row]:
        if not deliveries:
            return []
        ids = [message_id for message_id, _ in deliveries]
        destinations = [destination for _, destination in deliveries]
        return self._run(sql.KEYS_OF, ids=ids, destinations=destinations).fetchall()

    def _release(self, keys: Sequence[Row], skipping: Sequence[str]) -> list[Parked]:
        if not keys:
            return []
        return self._run(
            sql.RELEASE_KEYS,
            destinations=[destination for destination, _ in keys],
            keys=[key for _, key in keys],
            skipping=list(skipping),
        ).fetchall()

    def _insisting(self, write: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Write; repeat it after deadlocks, or if today's partition of the history was missing."""
        with self._guard():
            for pause_s in pauses_s():
                try:
                    return write()
                except psycopg.errors.CheckViolation as error:
                    if error.diag.table_name != "outbox_history":
                        raise
                    self._run("SELECT outbox_add_partition((clock_timestamp() AT TIME ZONE 'UTC')::date)")
                except psycopg.errors.DataCorrupted as error:
                    raise Damaged(sentence(error)) from error
                except psycopg.errors.DeadlockDetected:
                    time.sleep(pause_s)  # rows are locked in the order of ids, or, if settled by address, of the table
                write = again or write
            return write()

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        with self._guard(), self._transaction():
            self._run(sql.SHARE_REGISTRY)
            self._run(sql.MARK_UNROUTED, ids=[id_ for id_, _ in messages], generations=[g for _, g in messages])

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int], skipping: Sequence[str]) -> Swept:
        """See `relay.store.contract`; a slice is `PAGES` pages of the table."""
        end = at + sweeping.PAGES
        with self._guard():
            row = self._run(
                sweeping.SWEEP,
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
