"""Own shards: presence, locks, beats and peers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import psycopg
import structlog

import outbox
from outbox.errors import SchemaError
from relay.decide.crashes import Record
from relay.decide.rate import Rate
from relay.decide.shared_state import Finding, SharedState
from relay.decide.visibility import Horizon
from relay.platform.schema import NO_VERSION, verify_version
from relay.store.contract import ON_A_STANDBY, Inherited, Lost, Peers, Standby
from relay.store.inheriting import inherited_by
from relay.store.postgres.claiming import Claims
from relay.store.postgres.connection import sentence
from relay.store.postgres.reading import Reading
from relay.store.postgres.settling import Settling
from relay.store.postgres.sql import connection as connection_sql
from relay.store.postgres.sql import ownership as sql
from relay.store.rows import Row
from relay.store.ruling import storable

log = structlog.get_logger("relay")

FORGOTTEN_S = 0.1


class Peer(NamedTuple):
    """A live relay; this one is included.

    Args:
        number: Its number among the relays.
        pid: The process id of its backend.
        id: Its name, for people.
        wants: How many shards it asks for.
        silent_for_s: Seconds since its last beat.
        shards: The shards that it holds, as text: numbers with commas between them.
    """

    number: int
    pid: int
    id: str
    wants: int
    silent_for_s: float
    shards: str | None


class Owning(Reading, Settling):
    """The ownership of a session.

    Args:
        relay_id: The name of this relay, for people.
    """

    def __init__(self, *arguments: Any, relay_id: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._relay_id = relay_id
        self._owned: set[int] = set()
        self._not_to_be_ended: set[int] = set()
        self._inherited: list[Inherited] = []
        self._key = self._check_database()
        self._number = self._register()
        self._claims = Claims(self._run, key=self._key, number=self._number, owner=relay_id)

    def _check_database(self) -> int:
        """Return the class of our advisory locks, after checking that this database can be worked on."""
        if self._one("SELECT pg_is_in_recovery()"):
            raise Standby(ON_A_STANDBY)
        found = self._run(connection_sql.LOCK_CLASS).fetchone()
        if found is None:
            raise SchemaError(f"the database {self._database} has no outbox: run `outbox db upgrade`")
        verify_version(*self._schema_version())
        return int(found[0])

    def _schema_version(self) -> tuple[int, str]:
        version, oldest = self._run(sql.SCHEMA_VERSION).fetchone() or NO_VERSION
        return version, oldest

    def _register(self) -> int:
        presence = secrets.choice(sql.PRESENCES)
        number = int(self._one(sql.REGISTER, id=self._relay_id, presence=presence, release=outbox.__version__))
        if not self._one(sql.LOCK_PRESENCE, key=self._key, presence=presence):
            raise Lost(f"presence lock {presence} is taken: another is drawn")
        self._run(sql.FORGET_NAMESAKE, number=number)
        return number

    def server_age_s(self) -> float:
        with self._guard():
            return float(self._one(sql.SERVER_AGE))

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        with self._guard():
            beat = self._run(sql.BEAT, shards=json.dumps(sorted(shards)), wants=wants, number=self._number).fetchone()
            if beat is None:
                raise Lost("this relay is no longer registered as the owner of its session")
            living = [Peer(*row) for row in self._run(sql.PEERS, key=self._key)]
            registry = self._run(sql.REGISTRY).fetchall()
            schema = self._schema_version()
            ended = [peer.id for peer in living if self._is_stuck(peer) and self._end(peer)]
        return Peers(
            me=self._number,
            wants_of={peer.number: peer.wants for peer in living},
            held=frozenset(int(shard) for peer in living for shard in (peer.shards or "").split(",") if shard),
            generation=max((generation for _, generation, *_ in registry), default=0),
            shared_states={name: SharedState(*shared_state) for name, _, *shared_state in registry},
            ended=ended,
            schema=schema,
            clock_s=beat[0],
        )

    def _is_stuck(self, peer: Peer) -> bool:
        is_silent = peer.silent_for_s > 2 * self._lease_s
        return peer.number != self._number and is_silent and peer.pid not in self._not_to_be_ended

    def _end(self, peer: Peer) -> bool:
        """End a peer's session; return false for one of another role, which this role may not end."""
        try:
            self._run(sql.END_SESSION, pid=peer.pid)
        except psycopg.errors.InsufficientPrivilege as error:
            if not self._run(sql.FORGET_IMPOSTOR, number=peer.number, pid=peer.pid).rowcount:
                self._not_to_be_ended.add(peer.pid)
                log.warning("peer_not_ended", relay=peer.id, backend_pid=peer.pid, reason=sentence(error))
            return False
        return True

    def take(self, shards: Sequence[int], skipping: Sequence[str]) -> list[int]:
        wanted = [s for s in shards if s not in self._owned]
        if not wanted:
            return []
        with self._guard():
            taken, left_behind = self._claims.claim(wanted)
            if taken:
                self._owned.update(taken)
                self._inherited = self._inherit(left_behind)
                self._newest = int(self._one(sql.NEWEST))
                # Before the first read: the first look finds changes that operators make from now on.
                self._took_at = self._took_at or Horizon.parse(self._one(connection_sql.SNAPSHOT))
        return taken

    def _inherit(self, rows: Sequence[Row]) -> list[Inherited]:
        ids = {id_ for _, _, _, record, _ in rows for id_ in Record.parse(record).ids}
        present = frozenset(id_ for (id_,) in self._run(sql.PRESENT, ids=list(ids))) if ids else frozenset()
        return [inherited_by(self._relay_id, row, present) for row in rows]

    def inherited(self) -> Sequence[Inherited]:
        return self._inherited

    def note(self, records: Mapping[int, str | None]) -> None:
        shards = sorted(records)
        with self._guard():
            written = self._run(
                sql.NOTE, shards=shards, records=[records[shard] for shard in shards], owner=self._relay_id
            ).rowcount
            if written < len(records):
                self._insist(self._one(connection_sql.ASSERT_OWNER))

    def give(self, shards: Sequence[int]) -> None:
        with self._guard():
            self._claims.release(shards)
            self._owned.difference_update(shards)

    def report(self, finding: Finding) -> None:
        with self._guard():
            self._run(sql.REPORT, **asdict(replace(finding, reason=storable(finding.reason))))

    def claim_probe(self, name: str) -> tuple[bool, SharedState]:
        with self._guard():
            claimed = self._run(sql.CLAIM_PROBE, name=name).rowcount == 1
            row = self._run(sql.SHARED_STATE_OF, name=name).fetchone()
        return claimed, SharedState(*row) if row else SharedState("healthy")

    def claim_rate(self, name: str, want: int, rate: Rate) -> tuple[int, float]:
        with self._guard():
            row = self._claim_rate(name, want, rate)
            if row is None:
                self._run(sql.ADD_RATE, name=name, text=rate.text)
                row = self._claim_rate(name, want, rate)
        if row is None:  # it was taken away again, by a relay that starts without a limit
            return 0, FORGOTTEN_S
        granted, arrival_s, now_s = row
        return granted, rate.wait_s(arrival_s, now_s)

    def _claim_rate(self, name: str, want: int, rate: Rate) -> Row | None:
        asked = self._run(sql.CLAIM_RATE, name=name, want=want, per_s=rate.per_s, burst=rate.burst)
        return asked.fetchone()
