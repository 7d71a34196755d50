"""Own all shards of a file, and read how the last owner left them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import outbox
from outbox.errors import SchemaError
from relay.decide.crashes import Record
from relay.decide.rate import Rate
from relay.decide.shared_state import Finding, SharedState
from relay.platform.schema import NO_VERSION, verify_version
from relay.store.contract import Inherited, Peers
from relay.store.inheriting import inherited_by
from relay.store.ruling import storable
from relay.store.sqlite.reading import Reading
from relay.store.sqlite.settling import Settling
from relay.store.sqlite.sql import ownership as sql


class Owning(Reading, Settling):
    """The ownership of a session.

    Args:
        relay_id: The name of this relay, for people.
    """

    def __init__(self, *arguments: Any, relay_id: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._relay_id = relay_id
        self._owned: set[int] = set()
        self._inherited: list[Inherited] = []
        with self._guard():
            self._check_schema()
            self._number: int = self._write_one(sql.REGISTER, id=relay_id, release=outbox.__version__)

    def _check_schema(self) -> None:
        try:
            version, oldest = self._schema_version()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            raise SchemaError(f"the database {self._file.path} has no outbox: run `outbox db upgrade`") from None
        verify_version(version, oldest)

    def _schema_version(self) -> tuple[int, str]:
        version, oldest = self._run(sql.SCHEMA_VERSION).fetchone() or NO_VERSION
        return version, oldest

    def server_age_s(self) -> float:
        return float("inf")  # there is none

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        with self._guard(), self._transaction():
            self._run(sql.BEAT, shards=json.dumps(list(shards)), number=self._number)
            registry = self._run(sql.REGISTRY).fetchall()
            schema = self._schema_version()
            clock_s = self._one(sql.CLOCK)
        return Peers(
            me=self._number,
            wants_of={self._number: wants},
            held=frozenset(self._owned),
            generation=max((generation for _, generation, *_ in registry), default=0),
            shared_states={name: SharedState(*shared_state) for name, _, *shared_state in registry},
            schema=schema,
            clock_s=clock_s,
        )

    def take(self, shards: Sequence[int], skipping: Sequence[str]) -> list[int]:
        taken = [s for s in shards if s not in self._owned]
        if not taken:
            self._inherited = []
            return []
        with self._guard(), self._transaction():
            self._inherited = self._inherit(taken)
        self._owned.update(taken)
        return taken

    def _inherit(self, taken: Sequence[int]) -> list[Inherited]:
        rows = self._run(sql.LEFT_BEHIND, shards=json.dumps(taken)).fetchall()
        self._run(sql.MARK_SHARDS, dirty=True, owner=self._relay_id, shards=json.dumps(taken))
        ids = {id_ for _, _, _, record, _ in rows for id_ in Record.parse(record).ids}
        present = frozenset(id_ for (id_,) in self._run(sql.PRESENT, ids=json.dumps(list(ids))))
        return [inherited_by(self._relay_id, row, present) for row in rows]

    def inherited(self) -> Sequence[Inherited]:
        return self._inherited

    def note(self, records: Mapping[int, str | None]) -> None:
        rows = [(record, shard, self._relay_id) for shard, record in records.items()]
        with self._guard(), self._synchronous("NORMAL"), self._transaction():
            self._db.executemany(sql.NOTE, rows).close()

    def give(self, shards: Sequence[int]) -> None:
        with self._guard(), self._transaction():
            self._run(sql.MARK_SHARDS, dirty=False, owner=None, shards=json.dumps(list(shards)))
        self._owned.difference_update(shards)

    def report(self, finding: Finding) -> None:
        with self._guard(), self._transaction():
            self._run(sql.REPORT, **asdict(replace(finding, reason=storable(finding.reason))))

    def claim_probe(self, name: str) -> tuple[bool, SharedState]:
        return True, SharedState("healthy")  # there is no other relay

    def claim_rate(self, name: str, want: int, rate: Rate) -> tuple[int, float]:
        with self._guard(), self._synchronous("NORMAL"), self._transaction():
            self._run(sql.ADD_RATE, name=name, text=rate.text)
            arrival_s, now_s = self._run(sql.RATE, name=name).fetchone()
            granted, arrival_s = rate.claim(arrival_s, now_s, want)
            self._run(sql.CLAIM_RATE, name=name, arrival_s=arrival_s)
        return granted, rate.wait_s(arrival_s, now_s)
