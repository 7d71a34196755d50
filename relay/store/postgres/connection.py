"""The owning connection: its timeouts enforce the lease, and its token proves that it is still the same session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg.types.string import TextLoader

from outbox.errors import Unusable
from relay.platform.database import Database
from relay.platform.postgres import session_settings as pinning
from relay.store.contract import Full, Lost
from relay.store.postgres.executor import Answer, Executor, PendingAnswer
from relay.store.postgres.sql import connection as sql

HAS_TRANSACTION_TIMEOUT = 170000
ENDS = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)  # a session, or leaves it in doubt


class OwningConnection:
    """One session, which runs statements.

    Args:
        connection: A new connection.
        database: The database.
        lease_s: Seconds after which the server ends a silent session.
        token: Identifies this session.
        generation: The generation of registered destinations that this relay knows.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], database: Database, *, lease_s: float, token: str, generation: int
    ) -> None:
        self._connection, self._database, self._lease_s, self._token = connection, database, lease_s, token
        self._constants = {"token": token, "registered": generation}
        self._own_transactions: list[str] = []  # since the last look
        self._prepare()
        self._executor = Executor(connection)  # takes over the loaders that were registered until now

    def _prepare(self) -> None:
        connection = self._connection
        for name in ("uuid", "json", "jsonb", "timestamptz", "xid8"):
            connection.adapters.register_loader(name, TextLoader)
        lease_ms = int(self._lease_s * 1000)
        values = {"lease_ms": lease_ms, "lock_ms": lease_ms // 3, "check_ms": max(lease_ms // 5, 100)}
        pins = sql.SESSION_SETTINGS | pinning.search_path(self._database.schema)
        if connection.info.server_version >= HAS_TRANSACTION_TIMEOUT:
            pins |= {"transaction_timeout": "0"}
        connection.execute(pinning.statement({name: value.format(**values) for name, value in pins.items()}).encode())
        for name, value in sql.OPTIONAL_SETTINGS.items():
            try:
                self._set(name, value.format(**values))
            except psycopg.Error:
                continue  # not on every platform: see the manual on client_connection_check_interval
        self._set("outbox.owner", self._token)

    def _set(self, name: str, value: str) -> None:
        self._connection.execute("SELECT set_config(%s, %s, false)", (name, value))

    def _run(self, statement: str, **parameters: Any) -> Answer:
        return self._executor(statement, {**self._constants, **parameters})

    def _run_ahead(self, statement: str, **parameters: Any) -> PendingAnswer:
        """Run a statement without waiting for its answer, which arrives before the answer to the next statement."""
        return self._executor.ahead(statement, {**self._constants, **parameters})

    def _transaction(self) -> AbstractContextManager[Any]:
        self._executor.catch_up()  # before it: statements that were run ahead are separate transactions
        return self._connection.transaction()

    def _one(self, statement: str, **parameters: Any) -> Any:
        row = self._run(statement, **parameters).fetchone()
        assert row is not None
        return row[0]

    @staticmethod
    def _insist(is_owner: bool) -> None:
        if not is_owner:
            raise Lost("another session answered: this relay owns no shard any more")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Raise `Lost` for each error that ends a session, or leaves it in doubt."""
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise Unusable(f"{sentence(error)}: run what `outbox db grants` prints") from error
        except ENDS as error:
            raise as_lost(error) from error


def commit(*, durable: bool) -> str:
    """Return the value of ``synchronous_commit``, in the form that the statements take."""
    return "on" if durable else "off"


def as_lost(error: Exception) -> Lost:
    kind = Full if isinstance(error, psycopg.errors.DiskFull) else Lost
    return kind(sentence(error))


def sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
