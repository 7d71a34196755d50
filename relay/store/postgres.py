"""The store on PostgreSQL: the session is the lease.

A relay claims nothing row by row. It owns shards by holding *session* advisory locks, on one bare connection that is
never pooled and never silently reconnected: when the session ends, for whatever reason, the server itself gives the
locks to whoever asks next. The session carries a token (`outbox.owner`); a statement that only an owner may run asks
for it, so that a pooler or a reconnect that slipped a different session under us is found out at once.

The lease is the server's to enforce: an idle, stuck or vanished client is ended by the timeouts set in `_prepare`. The
freezes that escape all of them are ended by a peer, which sees in `outbox_relay` that the holder has not beaten for two
leases, by the database's own clock.
"""

from __future__ import annotations

import json
import os
import select
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import sql as pgsql
from psycopg.types.string import TextLoader

import outbox
from outbox.errors import SchemaError, Unusable
from outbox.tables import SHARD_COUNT
from relay.database import Database
from relay.decide.visibility import Horizon
from relay.entry import Row
from relay.migrations import verify_version
from relay.store import postgres_sql as sql
from relay.store.contract import MESSAGE_COLUMNS, Batch, Cursors, Lost, Page, Pair, Parked, Peers, Standby
from relay.store.ruling import as_json, finished_keys, storable

T = TypeVar("T")

NEVER, AWAKE, ASLEEP = 0, 1, 2  # what the sequence outbox_wake says
UNNOTIFIED_S = 0.1  # between polls when nobody notifies
LATE_LIMIT = 1000

Due = tuple[str, int, str]  # how far the reading of what falls due has come: (due_at, position, destination)
FIRST: Due = ("-infinity", 0, "")
LAST_POSITION = 2**63 - 1


class PostgresStore:
    """Opens owning sessions on a PostgreSQL database.

    Args:
        database: Where.
        lease_s: Seconds after which the server ends a session that says nothing.
        keep_history: Whether what was delivered moves to history or is deleted.
        notify: Whether to listen for workers' notifications.
    """

    def __init__(self, database: Database, *, lease_s: float, keep_history: bool, notify: bool) -> None:
        self.database = database
        self.lease_s = lease_s
        self.keep_history = keep_history
        self.notify = notify

    def open(self, relay_id: str) -> PostgresSession:
        try:
            connection = psycopg.connect(
                self.database.conninfo,
                autocommit=True,
                prepare_threshold=1,
                application_name=f"outbox relay {relay_id}",
                connect_timeout=max(int(self.lease_s / 3), 2),
                tcp_user_timeout=int(self.lease_s * 1000),
                keepalives_idle=max(int(self.lease_s / 3), 1),
                keepalives_interval=max(int(self.lease_s / 6), 1),
                keepalives_count=3,
            )
        except psycopg.OperationalError as error:
            raise Lost(_sentence(error)) from error
        try:
            return PostgresSession(self, connection, relay_id)
        except psycopg.OperationalError as error:
            connection.close()
            raise Lost(_sentence(error)) from error
        except BaseException:
            connection.close()
            raise


class PostgresSession:
    """One owning session."""

    def __init__(self, store: PostgresStore, connection: psycopg.Connection[Any], relay_id: str) -> None:
        self._store = store
        self._connection = connection
        self._relay_id = relay_id
        self._token = str(uuid.uuid4())
        self._owned: set[int] = set()
        self._horizon: Horizon | None = None
        self._took_at: Horizon | None = None  # shards for the first time
        self._asleep_since: Horizon | None = None
        self._own_transactions: list[str] = []
        self._scheduled: Due = FIRST
        self._retries: Due = FIRST
        self._per_shard = 8
        self._turn = 0
        self._prepare()
        self._cursor = connection.cursor()  # takes over the loaders that were registered until now
        self._key = self._check_database()
        self._number = self._register()

    # ------------------------------------------------------------- beginning

    def _prepare(self) -> None:
        connection, store = self._connection, self._store
        for name in ("uuid", "jsonb", "timestamptz", "xid8"):
            connection.adapters.register_loader(name, TextLoader)
        if store.database.schema is not None:
            self._set("search_path", pgsql.Identifier(store.database.schema).as_string(connection))
        lease_ms = int(store.lease_s * 1000)
        values = {"lease_ms": lease_ms, "lock_ms": lease_ms // 3, "check_ms": max(lease_ms // 5, 100)}
        for name, value in sql.SESSION_SETTINGS.items():
            self._set(name, value.format(**values))
        for name, value in sql.OPTIONAL_SETTINGS.items():
            try:
                self._set(name, value.format(**values))
            except psycopg.Error:
                continue  # not on every platform: see the manual on client_connection_check_interval
        self._set("outbox.owner", self._token)
        if store.notify:
            connection.execute("LISTEN outbox_wake")

    def _set(self, name: str, value: str) -> None:
        self._connection.execute("SELECT set_config(%s, %s, false)", (name, value))

    def _check_database(self) -> int:
        """The class of our advisory locks, once it is clear that this database can be worked on."""
        if self._one("SELECT pg_is_in_recovery()"):
            raise Standby("this database is a standby: it grants locks that mean nothing, so nothing is owned here")
        found = self._cursor.execute(sql.LOCK_CLASS).fetchone()
        if found is None:
            raise SchemaError(f"the database {self._store.database} has no outbox: run `outbox db upgrade`")
        version = self._cursor.execute("SELECT schema_version, oldest_release FROM outbox_meta").fetchone()
        verify_version(*version or (0, "0"))
        return int(found[0])

    def _register(self) -> int:
        number = int(self._one(sql.REGISTER, id=self._relay_id, release=outbox.__version__))
        if not self._one(sql.LOCK_PRESENCE, key=self._key, number=number):
            raise Lost(f"presence lock {number} is taken")
        if self._one("SELECT pg_backend_pid()") != self._connection.info.backend_pid or not self._is_owner():
            raise Unusable(
                "the relay's connection goes through a pooler in transaction mode, which cannot hold its locks: point "
                "OUTBOX_DATABASE_URL at the database itself, or at a pooler in session mode; workers may stay behind it"
            )
        return number

    # ------------------------------------------------------------- ownership

    def server_age_s(self) -> float:
        with self._guard():
            return float(self._one(sql.SERVER_AGE))

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        with self._guard():
            self._run(sql.BEAT, shards=json.dumps(sorted(shards)), wants=wants, number=self._number)
            if self._cursor.rowcount != 1:
                raise Lost("this relay is no longer registered as the owner of its session")
            locks = self._run(sql.PEERS, key=self._key).fetchall()
            registry = self._run(sql.REGISTRY).fetchall()
            ended = [self._end(row) for row in locks if self._is_stuck(row)]
        return Peers(
            me=self._number,
            wants_of={row[2]: row[4] for row in locks if row[2] is not None},
            held=frozenset(row[0] for row in locks if row[0] < sql.PRESENCE_BASE),
            generation=max((row[1] for row in registry), default=0),
            paused={row[0]: row[3] for row in registry if row[2] == "operator"},
            resumed={row[0]: row[4] for row in registry if row[4] is not None},
            ended=ended,
        )

    def _is_stuck(self, row: Row) -> bool:
        number, silent_for_s = row[2], row[5]
        return number is not None and number != self._number and silent_for_s > 2 * self._store.lease_s

    def _end(self, row: Row) -> str:
        self._run(sql.END_SESSION, pid=row[1])
        return str(row[3])

    def take(self, shards: Sequence[int], skipping: Sequence[str]) -> list[int]:
        wanted = [s for s in shards if s not in self._owned]
        if not wanted:
            return []
        with self._guard():
            taken = [row[0] for row in self._run(sql.LOCK_SHARDS, shards=wanted, key=self._key)]
            if taken:
                self._owned.update(taken)
                self._run(sql.MARK_SHARDS, shards=taken, dirty=True, owner=self._relay_id)
                # Before it sees what operators have done here: what they do from now on is found by the first look.
                self._took_at = self._took_at or Horizon.parse(self._one(sql.SNAPSHOT))
                self._run(sql.RELEASE_ORPHANS, shards=taken, skipping=list(skipping))
                self._finish_discarded(taken, skipping)
        return taken

    def _finish_discarded(self, shards: Sequence[int], skipping: Sequence[str]) -> None:
        while found := self._run(sql.DISCARDED, shards=list(shards)).fetchall():
            self.discard(found, skipping)

    def give(self, shards: Sequence[int]) -> None:
        with self._guard():
            self._run(sql.MARK_SHARDS, shards=list(shards), dirty=False, owner=None)
            self._run(sql.UNLOCK_SHARDS, shards=list(shards), key=self._key)
            self._owned.difference_update(shards)

    # --------------------------------------------------------------- reading

    def read_ready(self, cursors: Cursors, limit: int) -> Page:
        page = Page()
        with self._guard():
            self._look(page, cursors)
            if limit > 0 and cursors.ready:
                self._read_on(page, cursors, limit)
        return page

    def _look(self, page: Page, cursors: Cursors) -> None:
        """What has come late since the last look.

        The snapshot that the next look starts from is taken before anything is read: what commits in between is seen
        twice, and never missed.
        """
        if self._horizon is None or not cursors.ready:
            self._horizon = Horizon.parse(self._one(sql.SNAPSHOT))
            if self._took_at is not None and cursors.ready:
                self._read_foreign(page, cursors, self._since(self._took_at, cursors))
            return
        since = self._since(self._horizon, cursors)
        snapshot, late, foreign = self._run(sql.LOOK, **since).fetchall()[0]
        if late:
            self._read_late(page, cursors, since)
        if foreign:
            self._read_foreign(page, cursors, since)
        self._horizon = Horizon.parse(snapshot)
        self._own_transactions = []

    def _since(self, horizon: Horizon, cursors: Cursors) -> dict[str, Any]:
        return {
            "xmax": str(horizon.xmax),
            "running": [str(x) for x in horizon.running],
            "floor": [cursors.ready.get(shard, -1) for shard in range(SHARD_COUNT)],
            "due": self._scheduled[0],
            "own": self._own_transactions,
        }

    def _read_on(self, page: Page, cursors: Cursors, limit: int) -> None:
        shards = list(cursors.ready)
        self._turn = (self._turn + 1) % len(shards)
        shards = shards[self._turn :] + shards[: self._turn]
        rows = self._run(
            sql.READ_READY,
            shards=shards,
            cursors=[cursors.ready[s] for s in shards],
            per_shard=min(self._per_shard, limit),
            limit=limit,
        ).fetchall()
        for row in rows:
            cursors.ready[row[2]] = row[1]
        if len(rows) < limit:
            cursors.exhausted |= self._exhausted(shards, rows)
        page.messages += rows
        page.full = bool(rows)
        self._adapt(rows, limit)

    def _exhausted(self, shards: Sequence[int], rows: Sequence[Row]) -> set[int]:
        """The shards that have nothing more. The last one on a page tells nothing: it may be full of bytes."""
        counts = Counter(row[2] for row in rows)
        complete = shards[: shards.index(rows[-1][2])] if rows else shards
        return {shard for shard in complete if counts[shard] < self._per_shard}

    def _adapt(self, rows: list[Row], limit: int) -> None:
        """Read deep where few shards have anything, and evenly where all have."""
        if len(rows) >= limit:
            self._per_shard = max(limit // len({row[2] for row in rows}), 1)
        elif rows:
            self._per_shard = min(self._per_shard * 2, limit)

    def _read_late(self, page: Page, cursors: Cursors, since: dict[str, Any]) -> None:
        page.messages = self._run(sql.READ_LATE, limit=LATE_LIMIT, **since).fetchall()
        if len(page.messages) == LATE_LIMIT:
            for shard, position in self._run(sql.LATE_FLOOR, **since).fetchall():
                cursors.go_back(shard, position)
            self._scheduled = FIRST

    def _read_foreign(self, page: Page, cursors: Cursors, since: dict[str, Any]) -> None:
        """What operators did to deliveries: put back, or discarded."""
        for destination, shard, position, discarded in self._run(sql.LATE_DELIVERIES, **since).fetchall():
            page.discarded += [(message_id, destination) for message_id in discarded or ()]
            if position is not None:
                page.unparked.add(destination)
                cursors.lower(destination, shard, position)

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        pairs = [(d, s) for d in destinations for s in cursors.ready]
        with self._guard():
            rows = self._run(
                sql.READ_PARKED,
                destinations=[d for d, _ in pairs],
                shards=[s for _, s in pairs],
                cursors=[cursors.parked.get(pair, 0) for pair in pairs],
                until=[cursors.parked_until(s) for _, s in pairs],
                limit=limit,
            ).fetchall()
        for row in rows:
            cursors.parked[row[11], row[2]] = row[1]
        return rows

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        with self._guard():
            now = str(self._one("SELECT clock_timestamp()"))
            span = {"shards": list(shards), "now": now, "limit": limit}
            scheduled = self._run(sql.READ_SCHEDULED, **span, **_after(self._scheduled)).fetchall()
            retries = self._run(sql.READ_RETRIES, **span, **_after(self._retries)).fetchall()
        self._scheduled = _reached(scheduled, limit, now)
        self._retries = _reached(retries, limit, now)
        return Page(
            messages=[row[:-1] for row in scheduled],
            deliveries=[row[:-1] for row in retries],
            full=max(len(scheduled), len(retries)) == limit,
        )

    def reread_due(self) -> None:
        self._scheduled = self._retries = FIRST

    def held_keys(self, keys: Sequence[str], skipping: Sequence[str]) -> dict[tuple[str, str], int]:
        with self._guard():
            rows = self._run(sql.HELD_KEYS, keys=list(keys), skipping=list(skipping)).fetchall()
        return {(row[0], row[1]): row[2] for row in rows}

    def blocked_keys(self, pairs: Collection[Pair], skipping: Sequence[str]) -> dict[Pair, int]:
        with self._guard():
            rows = self._run(
                sql.BLOCKED_KEYS,
                destinations=[destination for destination, _ in pairs],
                keys=[key for _, key in pairs],
                skipping=list(skipping),
            ).fetchall()
        return {(row[0], row[1]): row[2] for row in rows}

    def has_deliveries(self, shards: Sequence[int]) -> bool:
        with self._guard():
            return bool(self._one(sql.HAS_DELIVERIES, shards=list(shards)))

    # -------------------------------------------------------------- settling

    def settle_plain(self, messages: Sequence[tuple[str, int]], *, durable: bool = True) -> int:
        statement = sql.SETTLE_PLAIN if self._store.keep_history else sql.SETTLE_PLAIN_KEEPING_NONE
        parameters = {
            "ids": [m[0] for m in messages],
            "generations": [m[1] for m in messages],
            "commit": "on" if durable else "off",
        }
        return self._with_partition(lambda: self._run(statement, **parameters).rowcount)

    def settle(self, batch: Batch) -> list[Parked]:
        return self._with_partition(lambda: self._settle(batch))

    def _settle(self, batch: Batch) -> list[Parked]:
        generation_of: dict[str, int | None] = {r.message_id: None for r in batch.ruled}
        generation_of.update(batch.messages)
        with self._owner_transaction():
            ids = self._lock(generation_of)
            known = set(ids)
            ruled = [r for r in batch.ruled if r.message_id in known]
            keyed = finished_keys(ruled, batch.skipping)
            self._run(sql.WRITE_RULED, ruled=as_json(ruled))
            self._run(sql.HOLD_MESSAGES, ids=ids)
            keys = self._run(sql.KEYS_OF, ids=[k[0] for k in keyed], destinations=[k[1] for k in keyed]).fetchall()
            self._run(sql.FINISH, ids=ids, keep=self._store.keep_history)
            parked = self._run(sql.PARKED_OF, ids=ids).fetchall()
            return parked + self._release(keys, batch.skipping)

    def discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        return self._with_partition(lambda: self._discard(deliveries, skipping))

    def _discard(self, deliveries: Sequence[tuple[str, str]], skipping: Sequence[str]) -> list[Parked]:
        with self._owner_transaction():
            ids = self._lock({message_id: None for message_id, _ in deliveries})
            keys = self._run(
                sql.KEYS_OF, ids=[d[0] for d in deliveries], destinations=[d[1] for d in deliveries]
            ).fetchall()
            self._run(sql.FINISH, ids=ids, keep=self._store.keep_history)
            return self._release(keys, skipping)

    @contextmanager
    def _owner_transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            if not self._is_owner():
                raise Lost("another session answered: this relay owns nothing any more")
            self._own_transactions.append(str(self._one(sql.TRANSACTION_ID)))
            yield

    def _lock(self, generation_of: Mapping[str, int | None]) -> list[str]:
        ids = sorted(generation_of)
        rows = self._run(sql.LOCK_MESSAGES, ids=ids, generations=[generation_of[id_] for id_ in ids])
        return [row[0] for row in rows.fetchall()]

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
        with self._guard():
            self._run(sql.MARK_UNROUTED, ids=[m[0] for m in messages], generations=[m[1] for m in messages])

    def show_health(self, name: str, state: str, reason: str | None, wait_s: float | None) -> None:
        with self._guard():
            self._run(sql.SHOW_HEALTH, name=name, state=state, reason=storable(reason), wait_s=wait_s)

    # --------------------------------------------------------------- waiting

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        with self._guard():
            server = self._connection.fileno()
            poll = select.poll()
            poll.register(server, select.POLLIN)
            poll.register(wake_fd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(max(timeout_s, 0) * 1000)}
            if wake_fd in ready:
                os.read(wake_fd, 4096)
            return server in ready and self._hear()

    def _hear(self) -> bool:
        """Read what the server says unasked: a notification, or good-bye."""
        pgconn = self._connection.pgconn
        pgconn.consume_input()
        notified = False
        while pgconn.notifies() is not None:
            notified = True
        return notified

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        """Long only once no running transaction can have decided not to notify before the flag was set."""
        if not self._store.notify:
            return min(wanted_s, UNNOTIFIED_S)
        with self._guard():
            state = self._one(sql.WAKE_STATE)
            if state == NEVER:
                return min(wanted_s, UNNOTIFIED_S)
            if state != ASLEEP or self._asleep_since is None:
                self._one(sql.SET_WAKE, value=ASLEEP)
                self._asleep_since = Horizon.parse(self._one(sql.SNAPSHOT))
                return short_s
            slept_in_peace = Horizon.parse(self._one(sql.SNAPSHOT)).is_past(self._asleep_since)
        return wanted_s if slept_in_peace else 2 * short_s

    def awake(self) -> None:
        if self._asleep_since is None:
            return
        self._asleep_since = None
        with self._guard():
            if self._one(sql.WAKE_STATE) == ASLEEP:
                self._one(sql.SET_WAKE, value=AWAKE)

    def close(self) -> None:
        try:
            if not self._connection.broken:
                self._run(sql.UNREGISTER, number=self._number)
        except psycopg.Error:
            pass  # the session is over either way
        finally:
            self._connection.close()

    # --------------------------------------------------------------- plumbing

    def _run(self, statement: str, **parameters: Any) -> psycopg.Cursor[Any]:
        return self._cursor.execute(statement, {"token": self._token, **parameters})

    def _one(self, statement: str, **parameters: Any) -> Any:
        row = self._run(statement, **parameters).fetchone()
        assert row is not None
        return row[0]

    def _is_owner(self) -> bool:
        return bool(self._one(sql.ASSERT_OWNER))

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Whatever ends a session, or leaves it in doubt, ends ours."""
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise Unusable(f"{_sentence(error)}: run what `outbox db grants` prints") from error
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
            raise Lost(_sentence(error)) from error


def _after(due: Due) -> dict[str, Any]:
    return {"due": due[0], "position": due[1], "destination": due[2]}


def _reached(rows: list[Row], limit: int, now: str) -> Due:
    """How far a reading came: to its last row when there may be more, to now when there is none."""
    if len(rows) < limit:
        return now, LAST_POSITION, ""
    last = rows[-1]
    return last[-1], last[1], last[11] if len(last) > len(MESSAGE_COLUMNS) + 1 else ""


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
