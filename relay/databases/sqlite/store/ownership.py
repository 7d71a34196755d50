"""Own all shards of a file, and read how the last owner left them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import outbox
from outbox.errors import SchemaError
from relay.databases.schema import NO_VERSION, verify_version
from relay.databases.sqlite.sql import ownership as sql
from relay.databases.sqlite.store.connection import OwningConnection
from relay.databases.sqlite.store.files import LogFiles, SessionFiles
from relay.databases.store.contract import Lost
from relay.databases.store.inheriting import Inherited, inherited_by
from relay.databases.store.records import Peers
from relay.databases.store.ruling import as_parameters
from relay.decide.rate import Rate
from relay.decide.shared_state import Finding, SharedState


class Ownership:
    """The ownership of all shards, as long as the names of the session's files refer to the same files.

    Args:
        connection: The open file of the session.
        files: The database and its lock.
        relay_id: The name of this relay, for people.
    """

    def __init__(self, connection: OwningConnection, files: SessionFiles, *, relay_id: str) -> None:
        self._db, self._files, self._relay_id = connection, files, relay_id
        self._owned: set[int] = set()
        with self._db.guard():
            self._check_schema()
        with self._db.writing():
            self._number: int = self._db.one(sql.REGISTER, id=relay_id, release=outbox.__version__)
            self._beaten_at = self._last_beat()
        self._log = LogFiles(connection)

    def _check_schema(self) -> None:
        try:
            version, oldest = self._schema_version()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            raise SchemaError(f"the database {self._db.path} has no outbox: run `outbox db upgrade`") from None
        verify_version(version, oldest)

    def _schema_version(self) -> tuple[int, str]:
        version, oldest = self._db.run(sql.SCHEMA_VERSION).fetchone() or NO_VERSION
        return version, oldest

    def server_age_s(self) -> float:
        return float("inf")  # there is no server

    def leave(self) -> None:
        """Remove the row of this relay."""
        self._db.run(sql.UNREGISTER, number=self._number)

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        self._files.check()
        self._log.check()
        with self._db.writing():
            if self._last_beat() != self._beaten_at:
                raise Lost(f"{self._db.path} was restored to an earlier state: all its messages are read again")
            self._db.run(sql.BEAT, shards=list(shards), number=self._number)
            self._beaten_at = self._last_beat()
            registry = self._db.run(sql.REGISTRY).fetchall()
            schema = self._schema_version()
            clock_s = self._db.one(sql.CLOCK)
        return Peers(
            me=self._number,
            wants_of={self._number: wants},
            held=frozenset(self._owned),
            generation=max((generation for _, generation, *_ in registry), default=0),
            shared_states={name: SharedState(*shared_state) for name, _, *shared_state in registry},
            schema=schema,
            clock_s=clock_s,
        )

    def _last_beat(self) -> str | None:
        """Return the last beat in the file: another one than ours shows that its contents were replaced."""
        row = self._db.run(sql.LAST_BEAT, number=self._number).fetchone()
        return row and str(row[0])

    def take(self, shards: Sequence[int]) -> list[Inherited]:
        taken = [s for s in shards if s not in self._owned]
        with self._db.writing():
            rows = self._db.run(sql.LEFT_BEHIND, shards=taken).fetchall()
            self._db.run(sql.MARK_SHARDS, dirty=True, owner=self._relay_id, shards=taken)
            inherited = inherited_by(self._relay_id, rows, lambda ids: self._db.run(sql.PRESENT, ids=ids))
        self._owned.update(taken)
        return inherited

    def note(self, records: Mapping[int, str | None]) -> None:
        rows = [(record, shard, self._relay_id) for shard, record in records.items()]
        with self._db.writing(durable=False):
            self._db.bare.executemany(sql.NOTE, rows).close()

    def give(self, shards: Sequence[int]) -> None:
        with self._db.writing():
            self._db.run(sql.MARK_SHARDS, dirty=False, owner=None, shards=list(shards))
        self._owned.difference_update(shards)

    def report(self, finding: Finding) -> None:
        with self._db.writing():
            self._db.run(sql.REPORT, **as_parameters(finding))

    def claim_probe(self, name: str) -> tuple[bool, SharedState]:
        return True, SharedState("healthy")  # there is no other relay

    def claim_rate(self, name: str, want: int, rate: Rate) -> tuple[int, float]:
        with self._db.writing(durable=False):
            self._db.run(sql.ADD_RATE, name=name, text=rate.text)
            arrival_s, now_s = self._db.run(sql.RATE, name=name).fetchone()
            granted, arrival_s = rate.claim(arrival_s, now_s, want)
            self._db.run(sql.CLAIM_RATE, name=name, arrival_s=arrival_s)
        return granted, rate.wait_s(arrival_s, now_s)
