"""Write verdicts in batches; scan the deliveries, slice by slice, for those that are blocked without a predecessor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from relay.databases.postgresql.sql import settling as sql
from relay.databases.postgresql.sql import sweeping
from relay.databases.postgresql.store import arrays
from relay.databases.postgresql.store.connection import OwningConnection, commit
from relay.databases.postgresql.store.writing import Writer, refusals
from relay.databases.store.records import Batch, Ruled, Swept
from relay.databases.store.rows import ADDRESS, ID, Parked, Row, by_generation
from relay.databases.store.ruling import as_record, finishable_messages, finished_keys


class Settling:
    """The writes of a session.

    Args:
        connection: The connection of the session.
        writer: Executes the writes.
        keep_history: Whether settled messages move to the history or are deleted.
    """

    def __init__(self, connection: OwningConnection, writer: Writer, *, keep_history: bool) -> None:
        self._db, self._writer, self._keep_history = connection, writer, keep_history
        self.given_up: Counter[tuple[str, str]] = Counter()

    def settle_plain(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        with self._db.guard():
            counted = [self._settle_alike(alike, g, durable=durable) for g, alike in by_generation(rows).items()]
        return lambda: sum(count() for count in counted)

    def _settle_alike(self, rows: Sequence[Row], generation: int, *, durable: bool) -> Callable[[], int]:
        """Have the rows settled by their addresses. The returned function settles rows that have moved, and counts."""
        here, moved = sql.SETTLE_PLAIN, sql.SETTLE_MOVED
        if not self._keep_history:
            here, moved = sql.SETTLE_PLAIN_KEEPING_NONE, sql.SETTLE_MOVED_KEEPING_NONE
        ids, addresses = arrays.uuids([row[ID] for row in rows]), arrays.addresses([row[ADDRESS] for row in rows])
        common: dict[str, Any] = {"ids": ids, "generation": generation, "commit": commit(durable=durable)}
        asked = self._db.run_ahead(here, addresses=addresses, **common)

        def count() -> int:
            again = partial(self._db.run, here, addresses=addresses, **common)
            settled = self._writer.write(partial(self._db.executor.answer, asked), again).rowcount
            if settled < len(rows):
                settled += self._writer.write(partial(self._db.run, moved, **common)).rowcount
            return settled

        return count

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        return self._writer.write(lambda: self._settle(batch, durable=durable))

    def _settle(self, batch: Batch, *, durable: bool) -> list[Parked]:
        generation_of: dict[str, int | None] = {r.message_id: None for r in batch.ruled}
        generation_of.update(batch.messages)
        ruled = [r for r in batch.ruled if not r.is_unknown]
        finishable, keyed = finishable_messages(batch), finished_keys(ruled, self._db.skipping)
        if not finishable and not keyed:  # no other statement follows, so this statement is the transaction
            return self._write(generation_of, ruled, durable=durable)[1]
        with self._db.transaction():
            known, parked = self._write(generation_of, ruled, durable=durable)
            unknown = [r for r in batch.ruled if r.is_unknown and r.message_id in known]
            if unknown:
                parked += self._write(dict.fromkeys(known), unknown, durable=durable, statement=sql.WRITE_UNKNOWN)[1]
            keys = self._keys_of([pair for pair in keyed if pair[0] in known])
            self._finish(finishable & known)
            return parked + self._release(keys)

    def discard(self, deliveries: Sequence[tuple[str, str]]) -> list[Parked]:
        return self._writer.write(lambda: self._discard(deliveries))

    def _discard(self, deliveries: Sequence[tuple[str, str]]) -> list[Parked]:
        with self._db.transaction():
            known, _ = self._write(dict.fromkeys(id_ for id_, _ in deliveries), [], durable=True)
            keys = self._keys_of(deliveries)
            self._finish(known)
            return self._release(keys)

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
            ruled_of[r.message_id].append(as_record(r, self._writer.codec))
        records = [{"id": k, "generation": generation_of[k], "ruled": v} for k, v in ruled_of.items()]
        messages = json.dumps(records, ensure_ascii=False)  # not every encoding of a database allows escapes
        ((number, known, parked),) = self._db.run(statement, messages=messages, commit=commit(durable=durable))
        self._db.insist(number is not None)
        self._db.own_transactions.append(number)
        return set(known), [(destination, shard, position) for destination, shard, position in json.loads(parked)]

    def _finish(self, ids: Collection[str]) -> None:
        if ids:
            self.given_up.update(self._db.run(sql.FINISH, ids=sorted(ids), keep=self._keep_history).fetchall())

    def _keys_of(self, deliveries: Sequence[tuple[str, str]]) -> Sequence[Row]:
        if not deliveries:
            return []
        ids = [message_id for message_id, _ in deliveries]
        destinations = [destination for _, destination in deliveries]
        return self._db.run(sql.KEYS_OF, ids=ids, destinations=destinations).fetchall()

    def _release(self, keys: Sequence[Row]) -> list[Parked]:
        if not keys:
            return []
        return self._db.run(
            sql.RELEASE_KEYS,
            destinations=[destination for destination, _ in keys],
            keys=[key for _, key in keys],
        ).fetchall()

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        with self._db.guard(), refusals(), self._db.transaction():
            self._db.run(sql.SHARE_REGISTRY)
            self._db.run(sql.MARK_UNROUTED, ids=[id_ for id_, _ in messages], generations=[g for _, g in messages])

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int]) -> Swept:
        """See `relay.databases.store.contract`; a slice is `PAGES` pages of the table."""
        end = at + sweeping.PAGES
        with self._db.guard():
            ((pages, holds_keys, released, discarded),) = self._db.run(
                sweeping.SWEEP,
                begin=f"({at},0)",
                end=f"({end},0)",
                shards=list(shards),
                fresh=list(fresh),
            )
        parked = json.loads(released)
        self._db.own_transactions += {txid for *_, txid in parked}
        return Swept(
            next_at=end if end < pages else None,
            parked=[(destination, shard, position) for destination, shard, position, _ in parked],
            discarded=[(message_id, destination) for message_id, destination in json.loads(discarded)],
            holds_keys=holds_keys,
        )
