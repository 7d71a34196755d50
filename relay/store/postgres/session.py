"""Opening owning sessions."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg

from outbox.errors import Unusable
from relay.platform.database import Database
from relay.platform.postgres.unsupported_servers import ASK, refuse_lockless_server
from relay.store.contract import ANY_GENERATION
from relay.store.postgres.connection import ENDS, as_lost, sentence
from relay.store.postgres.ownership import Owning
from relay.store.postgres.pooler import refuse_transaction_pooling
from relay.store.postgres.sql.ownership import UNREGISTER
from relay.store.postgres.waking import Waking


class PostgresStore:
    """Opens owning sessions on a PostgreSQL database.

    Args:
        database: The database.
        lease_s: Seconds after which the server ends a silent session.
        keep_history: Whether settled messages move to the history or are deleted.
        notify: Whether to listen for workers' notifications; if not, switch them off for all relays.
    """

    def __init__(self, database: Database, *, lease_s: float, keep_history: bool, notify: bool) -> None:
        self.database = database
        self.lease_s = lease_s
        self.keep_history = keep_history
        self.notify = notify

    def open(self, relay_id: str, generation: int = ANY_GENERATION) -> PostgresSession:
        try:
            connection = self._connect(relay_id)
        except psycopg.OperationalError as error:
            raise as_lost(error) from error
        try:
            refuse_lockless_server(_version(connection))
            refuse_transaction_pooling(connection, lambda: self._connect(f"{relay_id} (looking for a pooler)"))
            return PostgresSession(self, connection, relay_id, generation)
        except ENDS as error:
            connection.close()
            raise as_lost(error) from error
        except psycopg.errors.InsufficientPrivilege as error:
            connection.close()
            raise Unusable(f"{sentence(error)}: run what `outbox db grants` prints") from error
        except BaseException:
            connection.close()
            raise

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self.database.conninfo,
            autocommit=True,
            prepare_threshold=None,  # `Executor` does, and a rollback must not forget it
            application_name=f"outbox relay {name}",
            connect_timeout=max(int(self.lease_s / 3), 2),
            tcp_user_timeout=int(self.lease_s * 1000),
            keepalives_idle=max(int(self.lease_s / 3), 1),
            keepalives_interval=max(int(self.lease_s / 6), 1),
            keepalives_count=3,
        )


def _version(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(ASK).fetchone()
    return str(row[0]) if row is not None else ""


class PostgresSession(Owning, Waking):
    """One owning session."""

    def __init__(
        self, store: PostgresStore, connection: psycopg.Connection[Any], relay_id: str, generation: int
    ) -> None:
        super().__init__(
            connection,
            store.database,
            lease_s=store.lease_s,
            token=str(uuid.uuid4()),
            generation=generation,
            notify=store.notify,
            keep_history=store.keep_history,
            relay_id=relay_id,
        )
        self._begin_waking()

    def close(self) -> None:
        try:
            if not self._connection.broken:
                self._run(UNREGISTER, number=self._number)
        except psycopg.Error:
            pass  # the session has ended in any case
        finally:
            self._connection.close()
