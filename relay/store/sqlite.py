"""The store on SQLite: one relay a file, by an operating-system lock on a file beside it.

The lock is the lease: it ends with the process, however that ends, and a second relay stands by until then. There is
nothing to share and no peer to see; a shard is a name. Otherwise the rules are those of PostgreSQL, and one contract
suite holds both to them.
"""

from __future__ import annotations

import json
import os
import select
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from time import monotonic
from typing import Any

from filelock import FileLock, Timeout

import outbox
from outbox.errors import SchemaError
from relay.database import BUSY_TIMEOUT_S, Database, as_text
from relay.decide.crashes import Record
from relay.decide.standing import Finding, Standing
from relay.entry import Row
from relay.migrations import verify_version
from relay.store import sqlite_sql as sql
from relay.store.contract import (
    ANY_GENERATION,
    PAGE_BYTES,
    Batch,
    Cursors,
    Full,
    Inherited,
    Lost,
    Page,
    Pair,
    Parked,
    Peers,
    Standby,
)
from relay.store.inheriting import inherited_by
from relay.store.ruling import as_json, finished_keys, storable

LATE_LIMIT = 1000
LOOK_S = 0.005  # between looks at whether somebody has written

Due = tuple[str, int, str]  # how far the reading of what falls due has come: (due_at, position, destination)
FIRST: Due = ("", 0, "")


class SqliteStore:
    """Opens owning sessions on an SQLite file.

    Args:
        database: The file.
        keep_history: Whether what was delivered moves to history or is deleted.
    """

    def __init__(self, database: Database, *, keep_history: bool) -> None:
        self.database = database
        self.keep_history = keep_history
        self.holds_bytes = False  # that are not UTF-8; looking out for them costs a tenth of the reading

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> SqliteSession:
        path = self.database.path
        lock = FileLock(path.with_name(path.name + ".relay.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise Standby(f"another relay owns {path}; this one stands by and takes over when it ends") from None
        try:
            return SqliteSession(self, lock, relay_id, generation)
        except BaseException:
            lock.release()
            raise


class SqliteSession:
    """One owning session."""

    def __init__(self, store: SqliteStore, lock: FileLock, relay_id: str, generation: int) -> None:
        self._constants = {"registered": generation}
        self._store, self._lock, self._relay_id = store, lock, relay_id
        self._db = self._connect()
        self._owned: set[int] = set()
        self._inherited: list[Inherited] = []
        self._cursor = 0
        self._stamp = 0
        self._scheduled: Due = FIRST
        self._retries: Due = FIRST
        self._newest = 0
        with self._guard():
            self._check_schema()
            self._number: int = self._write_one(sql.REGISTER, id=relay_id, release=outbox.__version__)
            self._stamp = self._one(sql.LAST_STAMP)
            self._version = self._data_version()

    def _connect(self) -> sqlite3.Connection:
        path = self._store.database.path
        if not path.is_file():
            raise Lost(f"the database file {path} is not there")
        db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = FULL").close()
        if self._store.holds_bytes:
            db.text_factory = as_text
        return db

    def _check_schema(self) -> None:
        try:
            version, oldest = self._run(sql.SCHEMA_VERSION).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            raise SchemaError(
                f"the database {self._store.database.path} has no outbox: run `outbox db upgrade`"
            ) from None
        verify_version(version, oldest)

    # ------------------------------------------------------------- ownership

    def server_age_s(self) -> float:
        return float("inf")  # there is none

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        with self._guard(), self._transaction():
            self._run(sql.BEAT, shards=json.dumps(list(shards)), number=self._number)
            registry = self._run(sql.REGISTRY).fetchall()
            schema = self._run(sql.SCHEMA_VERSION).fetchone()
        return Peers(
            me=self._number,
            wants_of={self._number: wants},
            held=frozenset(self._owned),
            generation=max((row[1] for row in registry), default=0),
            standings={row[0]: Standing(*row[2:]) for row in registry},
            schema=schema,
        )

    def take(self, shards: Sequence[int], skipping: Sequence[str]) -> list[int]:
        taken = [s for s in shards if s not in self._owned]
        if not taken:
            self._inherited = []
            return []
        with self._guard(), self._transaction():
            self._inherited = self._inherit(taken)
            self._run(sql.RELEASE_ORPHANS, shards=json.dumps(taken), skipping=json.dumps(list(skipping)))
        self._finish_discarded(skipping)
        self._owned.update(taken)
        return taken

    def _inherit(self, taken: Sequence[int]) -> list[Inherited]:
        rows = self._run(sql.LEFT_BEHIND, shards=json.dumps(taken)).fetchall()
        self._run(sql.MARK_SHARDS, dirty=True, owner=self._relay_id, shards=json.dumps(taken))
        ids = {id_ for row in rows for id_ in Record.parse(row[3]).ids}
        present = frozenset(row[0] for row in self._run(sql.PRESENT, ids=json.dumps(list(ids))))
        return [inherited_by(self._relay_id, row, present) for row in rows]

    def inherited(self) -> Sequence[Inherited]:
        return self._inherited

    def note(self, records: Mapping[int, str | None]) -> None:
        rows = [(record, shard, self._relay_id) for shard, record in records.items()]
        with self._guard(), self._synchronous("NORMAL"), self._transaction():
            self._db.executemany(sql.NOTE, rows).close()

    def _finish_discarded(self, skipping: Sequence[str]) -> None:
        while found := self._discarded():
            self.discard(found, skipping)

    def _discarded(self) -> list[Row]:
        with self._guard():
            return self._run(sql.DISCARDED).fetchall()

    def give(self, shards: Sequence[int]) -> None:
        with self._guard(), self._transaction():
            self._run(sql.MARK_SHARDS, dirty=False, owner=None, shards=json.dumps(list(shards)))
        self._owned.difference_update(shards)

    # --------------------------------------------------------------- reading

    def read_ready(self, cursors: Cursors, limit: int) -> Page:
        """One cursor serves all shards: it is the lowest of theirs."""
        page = Page()
        if not cursors.ready:
            return page
        self._cursor = min(cursors.ready.values())
        with self._guard():
            self._read_late(page, cursors)
            if limit > 0:
                rows, _ = self._page(sql.READ_READY, limit, cursor=self._cursor)
                page.messages += rows
                page.full = bool(rows)
                if rows:
                    self._advance(cursors, rows[-1][1])
                else:
                    cursors.exhausted.update(cursors.ready)
        return page

    def _advance(self, cursors: Cursors, position: int) -> None:
        for shard in cursors.ready:
            cursors.ready[shard] = position

    def _read_late(self, page: Page, cursors: Cursors) -> None:
        stamp = self._one(sql.LAST_STAMP)
        if stamp <= self._stamp:
            self._stamp = stamp
            return
        page.messages, is_full = self._page(sql.READ_LATE, LATE_LIMIT, stamp=self._stamp, cursor=self._cursor)
        if is_full:
            self._advance(cursors, page.messages[0][1] - 1)
            cursors.exhausted.clear()
            self._cursor = page.messages[0][1] - 1
        for message_id, destination, shard, position, state in self._run(sql.LATE_DELIVERIES, stamp=self._stamp):
            if state == "discarded":
                page.discarded.append((message_id, destination))
            else:
                page.unparked.add(destination)
                cursors.lower(destination, shard, position)
        self._stamp = stamp

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        rows: list[Row] = []
        room_bytes = PAGE_BYTES
        for destination in destinations:
            mine = {shard: cursors.parked.get((destination, shard), 0) for shard in cursors.ready}
            with self._guard():
                found, _ = self._page(
                    sql.READ_PARKED,
                    limit - len(rows),
                    room_bytes,
                    destination=destination,
                    cursor=min(mine.values(), default=0),
                    until=min(map(cursors.parked_until, cursors.ready), default=0),
                )
            for row in found:
                for shard in mine:
                    cursors.parked[destination, shard] = row[1]
            room_bytes -= sum(len(row[8]) for row in found)
            rows += found
        return rows

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        with self._guard():
            late = self._read_scheduled_late()
            scheduled, more_scheduled = self._page(sql.READ_SCHEDULED, limit, **_after(self._scheduled))
            retries, more_retries = self._page(sql.READ_RETRIES, limit, **_after(self._retries))
        if scheduled:
            self._scheduled = (scheduled[-1][-1], scheduled[-1][1], "")
        if retries:
            self._retries = (retries[-1][-1], retries[-1][1], retries[-1][11])
        return Page(
            messages=[row[:-1] for row in [*late, *scheduled]],
            deliveries=[row[:-1] for row in retries],
            full=more_scheduled or more_retries,
        )

    def _read_scheduled_late(self) -> list[Row]:
        """What was scheduled since the last look for a time that the reading has passed: a page, or all from there."""
        newest = self._one(sql.NEWEST)
        if newest <= self._newest:
            return []
        last, self._newest = self._newest, newest
        late, is_full = self._page(sql.READ_SCHEDULED_LATE, LATE_LIMIT, newest=last, **_after(self._scheduled))
        if is_full:
            self._scheduled = FIRST
            return []
        return late

    def reread_due(self) -> None:
        self._scheduled = self._retries = FIRST

    def held_keys(self, keys: Sequence[str], destinations: Sequence[str], skipping: Sequence[str]) -> dict[Pair, int]:
        with self._guard():
            rows = self._run(
                sql.HELD_KEYS,
                keys=json.dumps(list(keys)),
                destinations=json.dumps(list(destinations)),
                skipping=json.dumps(list(skipping)),
            ).fetchall()
        return {(row[0], row[1]): row[2] for row in rows}

    def blocked_keys(self, pairs: Collection[Pair], skipping: Sequence[str]) -> dict[Pair, int]:
        with self._guard():
            rows = self._run(
                sql.BLOCKED_KEYS, pairs=json.dumps(list(pairs)), skipping=json.dumps(list(skipping))
            ).fetchall()
        return {(row[0], row[1]): row[2] for row in rows}

    def has_deliveries(self, shards: Sequence[int]) -> bool:
        with self._guard():
            return bool(self._one(sql.HAS_DELIVERIES))

    # -------------------------------------------------------------- settling

    def settle_plain(self, messages: Sequence[tuple[str, int]], *, durable: bool = True) -> int:
        with self._guard(), self._synchronous("FULL" if durable else "NORMAL"), self._transaction():
            if self._store.keep_history:
                self._db.executemany(sql.KEEP_PLAIN, messages).close()
            cursor = self._db.executemany(sql.DELETE_PLAIN, messages)
            count = cursor.rowcount
            cursor.close()
            return count

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        generation_of: dict[str, int | None] = {r.message_id: None for r in batch.ruled}
        generation_of.update(batch.messages)
        with self._guard(), self._synchronous("FULL" if durable else "NORMAL"), self._transaction():
            current = self._run(sql.IS_CURRENT, messages=json.dumps(list(generation_of.items()))).fetchall()
            known = {row[0] for row in current}
            ruled = [r for r in batch.ruled if r.message_id in known]
            self._run(sql.WRITE_RULED, ruled=as_json(ruled))
            self._run(sql.HOLD_MESSAGES, ids=json.dumps(sorted(known)))
            keys = self._run(sql.KEYS_OF, pairs=json.dumps(finished_keys(ruled, batch.skipping))).fetchall()
            self._finish(sorted(known))
            parked = self._run(sql.PARKED_OF, ids=json.dumps(sorted(known))).fetchall()
            return parked + self._release(keys, batch.skipping)

    def discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        with self._guard(), self._transaction():
            keys = self._run(sql.KEYS_OF, pairs=json.dumps(list(deliveries))).fetchall()
            self._finish(sorted({message_id for message_id, _ in deliveries}))
            return self._release(keys, skipping)

    def _finish(self, ids: Sequence[str]) -> None:
        done = json.dumps([row[0] for row in self._run(sql.DONE, ids=json.dumps(ids))])
        if self._store.keep_history:
            self._run(sql.KEEP, ids=done)
        self._run(sql.DELETE_DELIVERIES, ids=done)
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

    def report(self, finding: Finding) -> None:
        with self._guard(), self._transaction():
            self._run(sql.REPORT, **asdict(replace(finding, reason=storable(finding.reason))))

    def claim_probe(self, name: str) -> tuple[bool, Standing]:
        return True, Standing("healthy")  # there is nobody to share it with

    # --------------------------------------------------------------- waiting

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        """SQLite notifies nobody; but whether somebody has written is cheap to ask."""
        poll = select.poll()
        poll.register(wake_fd, select.POLLIN)
        deadline = monotonic() + timeout_s
        while (left := deadline - monotonic()) > 0:
            if poll.poll(min(left, LOOK_S) * 1000):
                os.read(wake_fd, 4096)
                return False
            if self._somebody_wrote():
                return True
        return False

    def _somebody_wrote(self) -> bool:
        with self._guard():
            version = self._data_version()
        changed, self._version = version != self._version, version
        return changed

    def _data_version(self) -> int:
        return int(self._one("PRAGMA data_version"))

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        return wanted_s

    def awake(self) -> None:
        """Nobody notifies, so nobody need be spared."""

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._run(sql.UNREGISTER, number=self._number)
        with suppress(sqlite3.Error):
            self._db.close()
        self._lock.release()

    # --------------------------------------------------------------- plumbing

    def _run(self, statement: str, **parameters: Any) -> sqlite3.Cursor:
        return self._db.execute(statement, {**self._constants, **parameters})

    def _one(self, statement: str, **parameters: Any) -> Any:
        cursor = self._run(statement, **parameters)
        row = cursor.fetchone()
        cursor.close()
        return row[0]

    def _page(
        self, statement: str, limit: int, room_bytes: int = PAGE_BYTES, **parameters: Any
    ) -> tuple[list[Row], bool]:
        """Rows that end with their size, without it, until there are enough of them or of their bytes; whether so."""
        rows: list[Row] = []
        if room_bytes <= 0:
            return rows, True
        cursor = self._run(statement, limit=limit, **parameters)
        for row in cursor:
            rows.append(row[:-1])
            room_bytes -= row[-1]
            if room_bytes <= 0:
                break
        cursor.close()
        return rows, len(rows) == limit or room_bytes <= 0

    def _write_one(self, statement: str, **parameters: Any) -> Any:
        with self._transaction():
            return self._one(statement, **parameters)

    @contextmanager
    def _synchronous(self, level: str) -> Iterator[None]:
        self._db.execute(f"PRAGMA synchronous = {level}").close()
        yield
        self._db.execute("PRAGMA synchronous = FULL").close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a file that is full has ended it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """A file that is busy, full or gone ends the session; the next one finds it better, or waits."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if str(error).startswith("Could not decode"):  # Python's own error, which quotes the text
                self._store.holds_bytes = True
                raise Lost("a message holds what is not UTF-8: it is read with U+FFFD in its place") from None
            kind = Full if error.sqlite_errorcode == sqlite3.SQLITE_FULL else Lost
            raise kind(str(error)) from error


def _after(due: Due) -> dict[str, Any]:
    return {"due": due[0], "position": due[1], "destination": due[2]}
