"""The owning connection: its timeouts enforce the lease, and its token proves that it is still the same session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg.types.string import TextLoader

from outbox.errors import Unusable
from relay.databases.address import Address
from relay.databases.postgresql.connections import session_settings as pinning
from relay.databases.postgresql.connections.answers import AnswerWatcher
from relay.databases.postgresql.connections.refusals import is_damage, is_refusal
from relay.databases.postgresql.sql import connection as sql
from relay.databases.postgresql.store.executor import Answer, Executor, PendingAnswer
from relay.databases.store.contract import Damaged, Full, Lost, Refused

HAS_TRANSACTION_TIMEOUT = 170000
ENDS = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)  # end it, or leave it in doubt


class OwningConnection:
    """The connection of one session. It runs statements; all parts of the session share it.

    Args:
        connection: A new connection.
        watcher: Ends it if the server does not answer.
        database: The database.
        lease_s: Seconds after which the server ends a silent session.
        generation: The generation of registered destinations that this relay knows.
        skipping: The destinations whose dead letters do not hold their successors up.

    Attributes:
        token: Identifies this session.
        own_transactions: The transactions of this session that wrote deliveries since the last look for late rows.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        watcher: AnswerWatcher,
        database: Address,
        *,
        lease_s: float,
        generation: int,
        skipping: list[str],
    ) -> None:
        self.bare, self.database, self.lease_s, self.skipping = connection, database, lease_s, skipping
        self.watcher = watcher
        self.token = str(uuid.uuid4())
        self.own_transactions: list[str] = []
        self._constants = {"token": self.token, "registered": generation, "skipping": skipping}
        self._prepare()
        self.executor = Executor(connection, watcher.note_answer)  # takes over the loaders that were registered before

    def _prepare(self) -> None:
        connection = self.bare
        for name in ("uuid", "json", "jsonb", "timestamptz", "xid8", "bytea"):
            connection.adapters.register_loader(name, TextLoader)
        lease_ms = int(self.lease_s * 1000)
        values = {"lease_ms": lease_ms, "lock_ms": lease_ms // 3, "check_ms": max(lease_ms // 5, 100)}
        pins = sql.SESSION_SETTINGS | pinning.search_path(self.database.schema)
        if connection.info.server_version >= HAS_TRANSACTION_TIMEOUT:
            pins |= {"transaction_timeout": "0"}
        connection.execute(pinning.statement({name: value.format(**values) for name, value in pins.items()}).encode())
        for name, value in sql.OPTIONAL_SETTINGS.items():
            try:
                self._set(name, value.format(**values))
            except psycopg.Error:
                continue  # not supported on every platform: see the manual on client_connection_check_interval
        self._set("outbox.owner", self.token)

    def _set(self, name: str, value: str) -> None:
        self.bare.execute("SELECT set_config(%s, %s, false)", (name, value))

    def run(self, statement: str, **parameters: Any) -> Answer:
        return self.executor(statement, {**self._constants, **parameters})

    def run_ahead(self, statement: str, *, is_large: bool = False, **parameters: Any) -> PendingAnswer:
        """Run a statement without waiting for its answer, which arrives before the answer to the next statement."""
        return self.executor.ahead(statement, {**self._constants, **parameters}, is_large=is_large)

    def transaction(self) -> AbstractContextManager[Any]:
        self.executor.catch_up()  # first, because statements that were run ahead are separate transactions
        return self.bare.transaction()

    def one(self, statement: str, **parameters: Any) -> Any:
        ((value,),) = self.run(statement, **parameters)
        return value

    @staticmethod
    def insist(is_owner: bool) -> None:
        if not is_owner:
            raise Lost("another session answered: this relay owns no shard any more")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raise `Lost` for each error that ends a session, or leaves it in doubt."""
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise denied(error) from error
        except ENDS as error:
            raise lost_by(error, self.watcher) from error


def commit(*, durable: bool) -> str:
    """Return the value of ``synchronous_commit``, in the form that the statements take."""
    return "on" if durable else "off"


def denied(error: Exception) -> Lost | Unusable:
    """Return the error for SQLSTATE 42501: this role lacks a right, or the server cannot open a file now."""
    if is_damage(error):
        return as_lost(error)
    return Unusable(f"{sentence(error)}: run what `outbox db grants` prints")


def as_lost(error: Exception) -> Lost:
    if is_damage(error):
        return Damaged(sentence(error))
    if isinstance(error, psycopg.errors.DiskFull):
        return Full(sentence(error))
    return (Refused if is_refusal(error) else Lost)(sentence(error))


def lost_by(error: Exception, watcher: AnswerWatcher) -> Lost:
    return as_lost(error) if watcher.reason is None else Lost(watcher.reason)


def sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
