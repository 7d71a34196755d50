"""Own shards: presence, rows, beats and peers.

A relay is alive as long as its session holds its presence lock, whose key is random and stored in the relay's row. A
shard belongs to the relay that the shard's row names by number, while that relay is alive. Advisory locks have no
privileges, so any login of the database may hold any of them; but only a relay's role can write the rows. See
docs/decisions/0015.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psycopg
import structlog

import outbox
from outbox.errors import SchemaError
from relay.databases.postgresql.sql import connection as connection_sql
from relay.databases.postgresql.sql import ownership as sql
from relay.databases.postgresql.store.connection import OwningConnection, sentence
from relay.databases.postgresql.store.reading import Reading
from relay.databases.postgresql.store.writing import Writer
from relay.databases.schema import NO_VERSION, verify_version
from relay.databases.store.contract import ON_A_STANDBY, Lost, Standby
from relay.databases.store.inheriting import Inherited, inherited_by
from relay.databases.store.records import Peers
from relay.databases.store.ruling import as_parameters
from relay.decide.rate import Rate
from relay.decide.shared_state import Finding, SharedState

log = structlog.get_logger("relay")

CLAIM_AGAIN_S = 0.01


class Peer(NamedTuple):
    """A live relay; this one is included.

    Args:
        number: Its number among the relays.
        pid: The process id of its backend.
        id: Its name, for people.
        wants: How many shards it asks for.
        silent_for_s: Seconds since its last beat.
        shards: The shards that it owns.
    """

    number: int
    pid: int
    id: str
    wants: int
    silent_for_s: float
    shards: list[int]


class Ownership:
    """The locks of a session, and the rows that relays write for each other.

    Args:
        connection: The connection of the session.
        reading: Reads the shards that are taken.
        writer: Executes the writes.
        relay_id: The name of this relay, for people.
    """

    def __init__(self, connection: OwningConnection, reading: Reading, writer: Writer, *, relay_id: str) -> None:
        self._db, self._reading, self._writer, self._relay_id = connection, reading, writer, relay_id
        self._owned: set[int] = set()
        self._not_to_be_ended: set[int] = set()
        self._check_database()
        self._number = self._register()

    def _check_database(self) -> None:
        """Check that a relay can work on this database."""
        if self._db.one("SELECT pg_is_in_recovery()"):
            raise Standby(ON_A_STANDBY)
        if self._db.one("SELECT to_regclass('outbox_message')") is None:
            raise SchemaError(f"the database {self._db.database} has no outbox: run `outbox db upgrade`")
        verify_version(*self._schema_version())

    def _schema_version(self) -> tuple[int, str]:
        version, oldest = self._db.run(sql.SCHEMA_VERSION).fetchone() or NO_VERSION
        return version, oldest

    def _register(self) -> int:
        self._db.run(sql.END_ABANDONED, lease_s=self._db.lease_s)
        presence = secrets.choice(sql.PRESENCES)
        number = int(self._db.one(sql.REGISTER, id=self._relay_id, presence=presence, release=outbox.__version__))
        if not self._db.one(sql.LOCK_PRESENCE, presence=presence):
            raise Lost(f"presence lock {presence} is taken: another is drawn")
        self._db.run(sql.FORGET_NAMESAKE, number=number)
        self._db.run(sql.RESTORE_SHARDS)
        return number

    def server_age_s(self) -> float:
        with self._db.guard():
            return float(self._db.one(sql.SERVER_AGE))

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        with self._db.guard():
            beat = self._db.run(
                sql.BEAT, shards=json.dumps(sorted(shards)), wants=wants, number=self._number
            ).fetchone()
            if beat is None:
                raise Lost("this relay is no longer registered as the owner of its session")
            living = [Peer(*row) for row in self._db.run(sql.PEERS)]
            self._insist_on_rows(living)
            registry = self._db.run(sql.REGISTRY).fetchall()
            schema = self._schema_version()
            ended = [peer.id for peer in living if self._is_stuck(peer) and self._end(peer)]
        return Peers(
            me=self._number,
            wants_of={peer.number: peer.wants for peer in living},
            held=frozenset(shard for peer in living for shard in peer.shards),
            generation=max((generation for _, generation, *_ in registry), default=0),
            shared_states={name: SharedState(*shared_state) for name, _, *shared_state in registry},
            ended=ended,
            schema=schema,
            clock_s=beat[0],
        )

    def _insist_on_rows(self, living: Sequence[Peer]) -> None:
        """End the session if rows of its shards were reset by hand: other relays may own them now."""
        mine = {shard for peer in living if peer.number == self._number for shard in peer.shards}
        if not self._owned <= mine:
            raise Lost("the rows of this relay's shards do not name it any more")

    def _is_stuck(self, peer: Peer) -> bool:
        is_silent = peer.silent_for_s > 2 * self._db.lease_s
        return peer.number != self._number and is_silent and peer.pid not in self._not_to_be_ended

    def _end(self, peer: Peer) -> bool:
        """End a peer's session; return false if it belongs to another role, whose sessions this role may not end."""
        try:
            self._db.run(sql.END_SESSION, pid=peer.pid)
        except psycopg.errors.InsufficientPrivilege as error:
            if not self._db.run(sql.FORGET_IMPOSTOR, number=peer.number, pid=peer.pid).rowcount:
                self._not_to_be_ended.add(peer.pid)
                log.warning("peer_not_ended", relay=peer.id, backend_pid=peer.pid, reason=sentence(error))
            return False
        return True

    def take(self, shards: Sequence[int]) -> list[Inherited]:
        wanted = sorted(set(shards) - self._owned)
        with self._db.guard():
            rows = self._db.run(sql.TAKE, shards=wanted, owner=self._relay_id, number=self._number).fetchall()
            if rows:
                self._owned.update(shard for shard, *_ in rows)
                self._reading.begin_shards()
            return inherited_by(self._relay_id, rows, lambda ids: self._db.run(sql.PRESENT, ids=ids))

    def note(self, records: Mapping[int, str | None]) -> None:
        shards = sorted(records)
        with self._db.guard():
            written = self._db.run(
                sql.NOTE, shards=shards, records=[records[shard] for shard in shards], owner=self._relay_id
            ).rowcount
            if written < len(records):
                self._db.insist(self._db.one(connection_sql.ASSERT_OWNER))

    def give(self, shards: Sequence[int]) -> None:
        with self._db.guard():
            self._db.run(sql.GIVE, shards=sorted(shards), number=self._number)
            self._owned.difference_update(shards)

    def leave(self) -> None:
        """Remove the row of this relay."""
        self._db.run(sql.UNREGISTER, number=self._number)

    def report(self, finding: Finding) -> None:
        self._writer.write(lambda: self._db.run(sql.REPORT, **as_parameters(finding, self._writer.codec)))

    def claim_probe(self, name: str) -> tuple[bool, SharedState]:
        with self._db.guard():
            claimed = self._db.run(sql.CLAIM_PROBE, name=name).rowcount == 1
            row = self._db.run(sql.SHARED_STATE_OF, name=name).fetchone()
        return claimed, SharedState(*row) if row else SharedState("healthy")

    def claim_rate(self, name: str, want: int, rate: Rate) -> tuple[int, float]:
        with self._db.guard():
            ((was_s, now_s),) = self._db.run(sql.RATE, name=name)
            granted, arrival_s = rate.claim(was_s, now_s, want)
            claim = {"name": name, "text": rate.text, "was_s": was_s, "arrival_s": arrival_s}
            if not self._db.run(sql.CLAIM_RATE, **claim).rowcount:
                return 0, CLAIM_AGAIN_S  # another relay was first
        return granted, rate.wait_s(arrival_s, now_s)
