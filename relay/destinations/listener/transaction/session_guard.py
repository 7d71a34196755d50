"""Prevent a listener from ending the transaction of its session.

The inbox mark is in that transaction, too. A listener that committed it and then failed would never be called again:
the mark would say that all its work is done, although the second half is missing. A listener that rolled it back and
returned would count as having taken the message. So only the destination ends the transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.orm import Session

from outbox.errors import TransactionHeld

ENDED = "has ended the transaction of its session"
COMMITTED_EARLY = (
    "has committed the transaction of its session over the driver's connection, so its next call repeats that"
)

_METHODS = ("commit", "rollback", "close", "reset", "invalidate", "prepare")

_ENDS = re.compile(
    r"\s*(commit|end|abort|prepare\s+transaction|rollback(?!(\s+(work|transaction))?\s+to\b))\b", re.IGNORECASE
)

_IN_ERROR = 3  # https://www.postgresql.org/docs/current/libpq-status.html#LIBPQ-PQTRANSACTIONSTATUS


class SessionGuard:
    """Guards the transactions of one engine's sessions.

    Args:
        engine: An engine that only this destination uses.
        label: The listener's name, for people.
    """

    def __init__(self, engine: sa.Engine, label: str) -> None:
        self._label = label
        self._held: set[sa.Connection] = set()
        sa.event.listen(engine, "commit", self._refuse_commit)
        sa.event.listen(engine, "before_cursor_execute", self._refuse_sql)

    @contextmanager
    def on(self, session: Session) -> Iterator[None]:
        """Guard the session's transaction until the block ends.

        Raises:
            TransactionHeld: The block ended, but the transaction had ended before or cannot be committed.
        """
        connection, transaction = session.connection(), session.get_transaction()
        inner = connection.get_transaction()
        self._take(session, connection)
        try:
            yield
        finally:
            self._release(session, connection)
        is_ours = session.get_transaction() is transaction and not connection.closed
        is_ours = is_ours and inner is not None and inner.is_active and connection.get_transaction() is inner
        if not is_ours:
            self.refuse(ENDED)
        if transaction is None or not session.is_active or _is_in_error(connection):
            raise TransactionHeld(
                f"{self._label} went on after an error that has undone everything in its transaction: do not catch the "
                "error, or put the code that may fail into a savepoint, with session.begin_nested()"
            )

    def _take(self, session: Session, connection: sa.Connection) -> None:
        self._held.add(connection)
        for name in _METHODS:
            setattr(session, name, self._refusing(name))

    def _release(self, session: Session, connection: sa.Connection) -> None:
        self._held.discard(connection)
        for name in _METHODS:
            vars(session).pop(name, None)

    def _refusing(self, name: str) -> Any:
        def refuse(*_: object, **__: object) -> NoReturn:
            self.refuse(f"has called session.{name}()")

        return refuse

    def _refuse_commit(self, connection: sa.Connection) -> None:
        if connection in self._held:
            # SQLAlchemy ends a transaction whose commit fails without a rollback, so the pool would keep it open: its
            # locks would stay, and the next call's commit would commit its writes.
            connection.dialect.do_rollback(connection.connection)
            self.refuse("has committed the transaction of its session")

    def _refuse_sql(self, connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        if connection in self._held and (found := _ENDS.match(statement)):
            self.refuse(f"has executed {' '.join(found[1].upper().split())}")

    def refuse(self, what: str) -> NoReturn:
        """Raise `TransactionHeld`: the listener did something that it must not do."""
        raise TransactionHeld(
            f"{self._label} {what}, which is committed together with the inbox mark when the listener returns, and "
            "rolled back when it raises: leave that to its caller; session.begin_nested() makes a savepoint"
        )


def _is_in_error(connection: sa.Connection) -> bool:
    """Return whether PostgreSQL would answer a COMMIT with a ROLLBACK, without an error."""
    if connection.invalidated:
        return True
    info = getattr(connection.connection.driver_connection, "info", None)
    return bool(getattr(info, "transaction_status", None) == _IN_ERROR)
