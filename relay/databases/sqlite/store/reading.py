"""Find ready, late, due and parked rows, each row once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from relay.databases.sqlite.sql import reading as sql
from relay.databases.sqlite.store.connection import OwningConnection
from relay.databases.store.rows import DATA, DESTINATION, PAGE_BYTES, POSITION, Cursors, Due, Page, Pair, Row, after
from relay.decide.verdict import State

LATE_LIMIT = 1000

FIRST: Due = ("", 0, "")


class Reading:
    """The reads of a session.

    Args:
        connection: The open file of the session.
    """

    def __init__(self, connection: OwningConnection) -> None:
        self._db, self.unreadable = connection, connection.unreadable
        self._cursor = 0
        self._scheduled: Due = FIRST
        self._retries: Due = FIRST
        self._newest = 0
        with connection.guard():
            self._txid = connection.one(sql.LAST_TXID)  # rows up to this one are read from the beginning, like all rows

    def read_ready(self, cursors: Cursors, limit: int, meanwhile: Callable[[], None] = lambda: None) -> Page:
        """Return the next ready messages, by one cursor for all shards: the lowest of their cursors."""
        page = Page()
        if not cursors.ready:
            return page
        self._cursor = min(cursors.ready.values())
        with self._db.guard():
            self._read_late(page, cursors)
            if limit > 0:
                rows, _ = self._db.page(sql.READ_READY, limit, cursor=self._cursor)
                page.messages += rows
                page.full = bool(rows)
                if rows:
                    self._advance(cursors, rows[-1][POSITION])
                elif not cursors.exhausted.issuperset(cursors.ready) and self._db.one(sql.REGISTERED):
                    cursors.exhausted.update(cursors.ready)
        return page

    def _advance(self, cursors: Cursors, position: int) -> None:
        for shard in cursors.ready:
            cursors.ready[shard] = position

    def _read_late(self, page: Page, cursors: Cursors) -> None:
        txid = self._db.one(sql.LAST_TXID)
        if txid <= self._txid:
            self._txid = txid
            return
        page.messages, is_full = self._db.page(sql.READ_LATE, LATE_LIMIT, since=self._txid, cursor=self._cursor)
        if is_full:
            self._advance(cursors, page.messages[0][POSITION] - 1)
            cursors.exhausted.clear()
            self._cursor = page.messages[0][POSITION] - 1
        for message_id, destination, shard, position, state in self._db.run(sql.LATE_DELIVERIES, since=self._txid):
            if state != State.PARKED:
                page.discarded.append((message_id, destination))
            else:
                page.unparked.add(destination)
                cursors.lower(destination, shard, position)
        self._txid = txid

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        rows: list[Row] = []
        room_bytes = PAGE_BYTES
        for destination in destinations:
            mine = {shard: cursors.parked.get((destination, shard), 0) for shard in cursors.ready}
            with self._db.guard():
                found, _ = self._db.page(
                    sql.READ_PARKED,
                    limit - len(rows),
                    room_bytes,
                    destination=destination,
                    cursor=min(mine.values(), default=0),
                    until=min(map(cursors.parked_until, cursors.ready), default=0),
                )
            for row in found:
                for shard in mine:
                    cursors.parked[destination, shard] = row[POSITION]
            room_bytes -= sum(len(row[DATA]) for row in found)
            rows += found
        return rows

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        with self._db.guard():
            if self._db.one(sql.TIME) < max(self._scheduled, self._retries)[0]:
                self.reread_due()  # the clock was set back: rows written after that are due before those that were read
            late = self._read_scheduled_late()
            scheduled, more_scheduled = self._db.page(sql.READ_SCHEDULED, limit, **after(self._scheduled))
            retries, more_retries = self._db.page(sql.READ_RETRIES, limit, **after(self._retries))
        if scheduled:
            self._scheduled = (scheduled[-1][-1], scheduled[-1][POSITION], "")
        if retries:
            self._retries = (retries[-1][-1], retries[-1][POSITION], retries[-1][DESTINATION])
        return Page(
            messages=[*late, *scheduled],
            deliveries=[row[:-1] for row in retries],
            full=more_scheduled or more_retries,
        )

    def _read_scheduled_late(self) -> list[Row]:
        """Return messages that were scheduled since the last look for a time that was already read.

        If there are more of them than fit on a page, read from the beginning instead.
        """
        newest = self._db.one(sql.NEWEST)
        if newest <= self._newest:
            return []
        last, self._newest = self._newest, newest
        late, is_full = self._db.page(sql.READ_SCHEDULED_LATE, LATE_LIMIT, newest=last, **after(self._scheduled))
        if is_full:
            self._scheduled = FIRST
            return []
        return late

    def reread_due(self) -> None:
        self._scheduled = self._retries = FIRST

    def held_keys(self, keys: Sequence[str], destinations: Sequence[str]) -> dict[Pair, int]:
        with self._db.guard():
            asked = {"keys": list(keys), "destinations": list(destinations)}
            rows = self._db.run(sql.HELD_KEYS, **asked).fetchall()
        return {(destination, key): position for destination, key, position in rows}

    def blocked_keys(self, pairs: Collection[Pair]) -> dict[Pair, int]:
        with self._db.guard():
            rows = self._db.run(sql.BLOCKED_KEYS, pairs=list(pairs)).fetchall()
        return {(destination, key): position for destination, key, position in rows}
