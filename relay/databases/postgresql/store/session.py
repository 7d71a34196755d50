"""Open owning sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import psycopg

from relay.databases.address import Address
from relay.databases.postgresql.connections.answers import AnswerWatcher
from relay.databases.postgresql.connections.engines import conninfo
from relay.databases.postgresql.connections.unsupported_servers import ASK, refuse_lockless_server
from relay.databases.postgresql.store.connection import ENDS, OwningConnection, as_lost, denied, lost_by
from relay.databases.postgresql.store.ownership import Ownership
from relay.databases.postgresql.store.pooler import refuse_transaction_pooling
from relay.databases.postgresql.store.reading import Reading
from relay.databases.postgresql.store.settling import Settling
from relay.databases.postgresql.store.waking import Waking
from relay.databases.postgresql.store.writing import Writer
from relay.databases.store.contract import ANY_GENERATION

SILENT_LEASES = 2  # by then the server has ended the session itself, if it works


@dataclass(frozen=True)
class PostgresStore:
    """Opens owning sessions on a PostgreSQL database.

    Args:
        database: The database.
        lease_s: Seconds after which the server ends a silent session.
        keep_history: Whether settled messages move to the history or are deleted.
        notify: Whether to listen for workers' notifications; if not, switch them off for all relays.
        skipping: The destinations whose dead letters do not hold their successors up.
    """

    database: Address
    _: KW_ONLY
    lease_s: float
    keep_history: bool
    notify: bool
    skipping: Sequence[str] = ()

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> PostgresSession:
        try:
            connection = self._connect(relay_id)
        except psycopg.OperationalError as error:
            raise as_lost(error) from error
        watcher = AnswerWatcher(connection, SILENT_LEASES * self.lease_s)
        try:
            refuse_lockless_server(str(connection.execute(ASK).fetchone()))
            refuse_transaction_pooling(connection, lambda: self._connect(f"{relay_id} (looking for a pooler)"))
            return PostgresSession(self, connection, watcher, relay_id, generation)
        except BaseException as error:
            watcher.close()
            connection.close()
            if isinstance(error, ENDS):
                raise lost_by(error, watcher) from error
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise denied(error) from error
            raise

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            conninfo(self.database.url),
            autocommit=True,
            prepare_threshold=None,  # `Executor` prepares statements, and a rollback must not forget them
            application_name=f"outbox relay {name}",
            connect_timeout=max(int(self.lease_s / 3), 2),
            tcp_user_timeout=int(self.lease_s * 1000),
            keepalives_idle=max(int(self.lease_s / 3), 1),
            keepalives_interval=max(int(self.lease_s / 6), 1),
            keepalives_count=3,
        )


class PostgresSession:
    """One owning session: a connection, and the parts of the session by their purpose."""

    def __init__(
        self,
        store: PostgresStore,
        connection: psycopg.Connection[Any],
        watcher: AnswerWatcher,
        relay_id: str,
        generation: int,
    ) -> None:
        self.connection = OwningConnection(
            connection,
            watcher,
            store.database,
            lease_s=store.lease_s,
            generation=generation,
            skipping=list(store.skipping),
        )
        writer = Writer(self.connection)
        self.reading = Reading(self.connection)
        self.settling = Settling(self.connection, writer, keep_history=store.keep_history)
        self.ownership = Ownership(self.connection, self.reading, writer, relay_id=relay_id)
        self.waking = Waking(self.connection, notify=store.notify)

    def close(self) -> None:
        bare = self.connection.bare
        try:
            if not bare.broken:
                self.ownership.leave()
        except psycopg.Error:
            pass  # the session has ended in any case
        finally:
            self.connection.watcher.close()
            bare.close()
