"""The inbox mark of one call, and a sign that shows whether the call is still in the mark's transaction.

A listener can end the transaction on the driver's own connection, where SQLAlchemy does not notice it: with
``commit()``, with SQLite's ``executescript()``, or with a library that commits. If the call then fails, its mark is in
the database already, and the message would count as processed although half of its work is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from outbox.inbox import connection_of, mark_returning
from outbox.tables import tables
from relay.databases.dialect import dialect_of
from relay.observe.logging import redacted

log = structlog.get_logger("relay")


class InboxMark:
    """The inbox mark of one call.

    Args:
        listener: The listener's name in the inbox.
        message_id: The message's id.

    Attributes:
        has_lost_its_transaction: Whether the transaction of the mark had ended by the time the listener ended.
    """

    def __init__(self, listener: str, message_id: str) -> None:
        self._listener, self._message_id = listener, message_id
        self.has_lost_its_transaction = False

    def make(self, session: Session) -> bool:
        """Write the mark, with its sign; return ``False`` if the listener has processed the message before."""
        connection = self._connection = connection_of(session, None)
        dialect = dialect_of(connection)
        made = mark_returning(connection, self._listener, self._message_id, dialect.MARKS)
        self._sign = dialect.sign(connection)
        self._made = made[0] if made is not None else None
        return made is not None

    def look(self, _: object = None) -> None:
        """Note whether the session is still in the transaction of the mark."""
        self.has_lost_its_transaction = not self._has_its_transaction()

    def remove(self, connection: sa.Connection) -> bool:
        """Remove the mark; return whether it was there, which means that its transaction was committed.

        The mark of another call stays: after a lost connection, another relay may have called the listener again.
        """
        inbox = tables().inbox
        is_named = sa.and_(inbox.c.listener == self._listener, inbox.c.message_id == self._message_id)
        marked = dialect_of(connection).MARKED
        return connection.execute(sa.delete(inbox).where(is_named, marked == self._made)).rowcount == 1

    @contextmanager
    def warning_if_it_may_stay(self) -> Iterator[None]:
        """Log a warning if the mark cannot be removed, for example because the role lacks the right to do that."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            log.warning(
                "inbox_mark_may_stay",
                listener=self._listener,
                message_id=self._message_id,
                reason=redacted(str(error.orig).strip()),
            )

    def _has_its_transaction(self) -> bool:
        connection = self._connection
        if connection.closed or connection.invalidated:
            return False
        return dialect_of(connection).has_sign(connection, self._sign)
