"""Find ready, late, due and parked rows, each row once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from time import monotonic
from typing import Any

from outbox.tables import SHARD_COUNT
from relay.databases.postgresql.sql import reading as sql
from relay.databases.postgresql.sql.connection import SNAPSHOT
from relay.databases.postgresql.store.connection import OwningConnection
from relay.databases.postgresql.store.salvaging import UNREADABLE, Salvaging
from relay.databases.store.rows import (
    DATA,
    DESTINATION,
    MESSAGE_COLUMNS,
    PAGE_BYTES,
    POSITION,
    SHARD,
    UNBOUNDED,
    Cursors,
    Due,
    Page,
    Pair,
    Row,
    after,
    until_large,
)
from relay.decide.visibility import Horizon

LATE_LIMIT = 1000
QUICK_S = 0.1
MUCH = 50  # an answer of this many rows comes in more than one piece

FIRST: Due = ("-infinity", 0, "")


class Reading:
    """The reads of a session.

    Args:
        connection: The connection of the session.
    """

    def __init__(self, connection: OwningConnection) -> None:
        self._db, self._rows = connection, Salvaging(connection)
        self.unreadable = self._rows.unreadable
        self._horizon: Horizon | None = None
        self._scheduled: Due = FIRST
        self._retries: Due = FIRST
        self._took_at: Horizon | None = None  # when shards were taken for the first time
        self._due_since: Horizon | None = None  # when due messages were read for the first time, before any look
        self._newest = 0  # the newest position when shards were taken
        self._per_shard = 8
        self._turn = 0
        self._read_much = False
        self._are_small = False  # whether a full page of messages like the last ones stays below the bytes of a page

    def begin_shards(self) -> None:
        """Note where newly taken shards begin; looks find the rows that change after this."""
        self._newest = int(self._db.one(sql.NEWEST))
        self._took_at = self._took_at or Horizon.parse(self._db.one(SNAPSHOT))

    def read_ready(self, cursors: Cursors, limit: int, meanwhile: Callable[[], None] = lambda: None) -> Page:
        page = Page()
        with self._db.guard():
            known = [shard for shard in cursors.ready if not cursors.is_new(shard)]
            if self._horizon is None or not cursors.ready:
                self._look_first(page, cursors)
            elif limit > 0 and known:
                if self._look_and_read(page, cursors, self._horizon, self._span(cursors, known, limit), meanwhile):
                    known = []
            else:
                self._look(page, cursors, self._horizon)
            if limit > 0:
                if known:
                    self._read_on(page, cursors, self._span(cursors, known, limit))
                self._read_new(page, cursors, limit)
        return page

    def _look_first(self, page: Page, cursors: Cursors) -> None:
        """Take the snapshot from which the next look starts; ready messages are read from the beginning.

        Due messages may have been read before this. Rows that have become visible in the meantime may be due and late.
        """
        ((snapshot, mine),) = self._db.run(sql.FIRST_LOOK)
        self._db.insist(mine)
        self._horizon = Horizon.parse(snapshot)
        if self._took_at is not None and cursors.ready:
            self._read_foreign(page, cursors, self._since(self._took_at, cursors))
        if self._due_since is not None and cursors.ready:
            self._read_late(page, cursors, self._since(self._due_since, cursors))

    def _look(self, page: Page, cursors: Cursors, horizon: Horizon) -> None:
        """Find rows that became visible late since the last look.

        The snapshot for the next look is taken first: a row that commits in between is read twice, but never missed.
        """
        since = self._since(horizon, cursors)
        ((snapshot, mine, late, foreign),) = self._db.run(sql.LOOK, **since)
        self._db.insist(mine)
        self._find(page, cursors, since, late=late, foreign=foreign)
        self._horizon = Horizon.parse(snapshot)
        self._db.own_transactions = []

    def _look_and_read(
        self, page: Page, cursors: Cursors, horizon: Horizon, span: dict[str, Any], meanwhile: Callable[[], None]
    ) -> bool:
        """Look and read on; return false if the read must be repeated from lower cursors."""
        since = self._since(horizon, cursors)
        self._db.own_transactions = []  # later transactions are for the next look
        statement = sql.LOOK_AND_READ_SMALL if self._are_small else sql.LOOK_AND_READ
        try:
            if self._read_much:
                asked = self._db.run_ahead(statement, is_large=True, **since, **span)
                meanwhile()  # the server works on that while the rows are decoded
                answer = self._db.executor.answer(asked)
            else:
                answer = self._db.run(statement, **since, **span)
                meanwhile()
            rows = answer.fetchall()
        except UNREADABLE:
            rows = self._rows.salvage(sql.LOOK_AND_READ, **since, **span)
        snapshot, mine, late, foreign = rows.pop(0)[-1].split()
        self._db.insist(mine == "t")
        went_back = self._find(page, cursors, since, late=late == "t", foreign=foreign == "t")
        self._horizon = Horizon.parse(snapshot)
        if not went_back:
            self._take_in(page, cursors, rows, span)
        return not went_back

    def _find(self, page: Page, cursors: Cursors, since: dict[str, Any], *, late: bool, foreign: bool) -> bool:
        """Read the rows that the look found; return whether a cursor had to go back."""
        went_back = late and self._read_late(page, cursors, since)
        if foreign:
            self._read_foreign(page, cursors, since)
        return went_back

    def _since(self, horizon: Horizon, cursors: Cursors) -> dict[str, Any]:
        floor = [cursors.ready.get(shard, -1) for shard in range(SHARD_COUNT)]
        return {
            "xmax": str(horizon.xmax),
            "running": [str(x) for x in horizon.running],
            "floor": floor,
            "reached": max(floor),
            "due": self._scheduled[0],
            "own": self._db.own_transactions,
        }

    def _read_on(self, page: Page, cursors: Cursors, span: dict[str, Any]) -> None:
        self._take_in(page, cursors, self._rows.fetch(sql.READ_READY, **span), span)

    def _read_new(self, page: Page, cursors: Cursors, limit: int) -> None:
        """Begin to read newly taken shards: first one, then more as long as that is quick.

        Settled rows are in the index until vacuum; to pass over ten million takes twenty seconds: too long at once.
        """
        new = [shard for shard in cursors.ready if cursors.is_new(shard)]
        at_once, goes_on = 1, True
        while new and goes_on and (room := limit - len(page.messages)) > 0 and (bytes_ := page.room_bytes) > 0:
            began_at, per_shard = monotonic(), self._per_shard
            self._read_on(page, cursors, self._span(cursors, new[:at_once], room, bytes_))
            at_once, self._per_shard = at_once * 2, per_shard
            before, new = new, [shard for shard in new if cursors.is_new(shard)]
            if len(new) == len(before):
                return  # other destinations were registered
            goes_on = monotonic() - began_at < QUICK_S
        page.full = page.full or bool(new)

    def _span(self, cursors: Cursors, shards: list[int], limit: int, bytes_: int = PAGE_BYTES) -> dict[str, Any]:
        """Return the parameters of the next read: it reads a part of every shard, from the shard's cursor on."""
        self._turn = (self._turn + 1) % len(shards)
        shards = shards[self._turn :] + shards[: self._turn]
        return {
            "shards": shards,
            "cursors": [cursors.ready[s] for s in shards],
            "per_shard": min(self._per_shard, limit),
            "limit": limit,
            "bytes": bytes_,
            "small": bytes_ // limit,
        }

    def _take_in(self, page: Page, cursors: Cursors, rows: list[Row], span: dict[str, Any]) -> None:
        taken, large = until_large(rows)
        for row in taken:
            cursors.ready[row[SHARD]] = row[POSITION]
        if len(rows) < span["limit"]:
            exhausted = self._exhausted(span["shards"], rows) - large
            # A statement that finds rows has found this session registered.
            if rows or exhausted <= cursors.exhausted or self._db.one(sql.REGISTERED):
                self._leave_behind(cursors, exhausted)
        self._read_much = len(rows) > MUCH
        if rows:
            self._are_small = not large and (self._are_small or max(len(row[DATA]) for row in rows) <= span["small"])
        page.messages += taken
        page.full = page.full or bool(rows)
        self._adapt(rows, span["limit"])

    def _leave_behind(self, cursors: Cursors, exhausted: set[int]) -> None:
        """Move the cursors of shards without ready rows past the settled rows, which are in the index until vacuum.

        Rows that later commit below a cursor are found as late rows. If other destinations were registered, this is not
        done: this session finds no rows, and parked deliveries must not overtake ready ones.
        """
        cursors.exhausted |= exhausted
        for shard in exhausted:
            cursors.ready[shard] = max(cursors.ready[shard], self._newest)

    def _exhausted(self, shards: Sequence[int], rows: Sequence[Row]) -> set[int]:
        """Return the shards without more rows, except the last shard on a page, which the size limit may have cut."""
        counts = Counter(row[SHARD] for row in rows)
        complete = shards[: shards.index(rows[-1][SHARD])] if rows else shards
        return {shard for shard in complete if counts[shard] < self._per_shard}

    def _adapt(self, rows: list[Row], limit: int) -> None:
        """Note how many rows to read of each shard: many if few shards have rows, else an equal share of the limit."""
        if rows:
            share = max(limit // len({row[SHARD] for row in rows}), 1)
            self._per_shard = share if len(rows) >= limit else min(max(share, self._per_shard * 2), limit)

    def _read_late(self, page: Page, cursors: Cursors, since: dict[str, Any]) -> bool:
        rows = self._rows.fetch(sql.READ_LATE, limit=LATE_LIMIT, **since)
        if not _is_full(rows, LATE_LIMIT):
            page.messages = sorted((row[:-2] for row in rows), key=itemgetter(POSITION))
            return False
        # Any page of late rows will do: the reads that go back for them find them in their order.
        for shard, position in self._db.run(sql.LATE_FLOOR, **since).fetchall():
            cursors.go_back(shard, position)
        self._scheduled = FIRST
        return True

    def _read_foreign(self, page: Page, cursors: Cursors, since: dict[str, Any]) -> None:
        """Read the changes of operators: deliveries that were put back, discarded or cancelled."""
        for destination, shard, position, discarded in self._db.run(sql.LATE_DELIVERIES, **since).fetchall():
            page.discarded += [(message_id, destination) for message_id in discarded or ()]
            if position is not None:
                page.unparked.add(destination)
                cursors.lower(destination, shard, position)

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        pairs = [(d, s) for d in destinations for s in cursors.ready]
        with self._db.guard():
            rows = self._rows.fetch(
                sql.READ_PARKED,
                destinations=[d for d, _ in pairs],
                shards=[s for _, s in pairs],
                cursors=[cursors.parked.get(pair, 0) for pair in pairs],
                until=[cursors.parked_until(s) for _, s in pairs],
                limit=limit,
            )
        for row in rows:
            cursors.parked[row[DESTINATION], row[SHARD]] = row[POSITION]
        return [row[:-2] for row in rows]

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        with self._db.guard():
            if self._horizon is None:
                self._due_since = self._due_since or Horizon.parse(self._db.one(SNAPSHOT))
            now = str(self._db.one("SELECT clock_timestamp()"))
            if now < max(self._scheduled, self._retries)[0]:
                self.reread_due()  # the clock was set back: rows written after that are due before those that were read
            span = {"shards": list(shards), "now": now, "limit": limit}
            scheduled = self._rows.fetch(sql.READ_SCHEDULED, **span, **after(self._scheduled))
            retries = self._rows.fetch(sql.READ_RETRIES, **span, **after(self._retries))
        self._scheduled = _reached(scheduled, limit, now)
        self._retries = _reached(retries, limit, now)
        is_full = _is_full(scheduled, limit) or _is_full(retries, limit)
        return Page([row[:-2] for row in scheduled], [row[:-3] for row in retries], full=is_full)

    def reread_due(self) -> None:
        self._scheduled = self._retries = FIRST

    def held_keys(self, keys: Sequence[str], destinations: Sequence[str]) -> dict[Pair, int]:
        return self._positions_of(sql.HELD_KEYS, keys=list(keys), destinations=list(destinations))

    def blocked_keys(self, pairs: Collection[Pair]) -> dict[Pair, int]:
        destinations, keys = [name for name, _ in pairs], [key for _, key in pairs]
        return self._positions_of(sql.BLOCKED_KEYS, destinations=destinations, keys=keys)

    def _positions_of(self, statement: str, **asked: list[str]) -> dict[Pair, int]:
        with self._db.guard():
            rows = self._db.run(statement, **asked).fetchall()
        return {(destination, key): position for destination, key, position in rows}


def _is_full(rows: list[Row], limit: int) -> bool:
    """Return whether there may be more rows after this page, whose last column counts bytes."""
    return bool(rows) and (len(rows) == limit or rows[-1][-1] >= PAGE_BYTES)


def _reached(rows: list[Row], limit: int, now: str) -> Due:
    """Return the position after a read: that of its last row if there may be more rows, else now."""
    if not _is_full(rows, limit):
        return now, UNBOUNDED, ""
    last = rows[-1]
    return last[-3], last[POSITION], last[DESTINATION] if len(last) > len(MESSAGE_COLUMNS) + 3 else ""
