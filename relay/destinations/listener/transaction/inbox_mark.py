"""The inbox mark of one call, and a sign that shows whether the call's transaction is still the one of the mark.

A listener can end the transaction on the driver's own connection, where SQLAlchemy notices nothing: with ``commit()``
there, with ``executescript()`` of SQLite, or with a library that commits. If the call then fails, its mark is in the
database already, and the message would count as processed although half of its work is missing.

On PostgreSQL the sign is ``application_name``, changed for one transaction by the statement that writes the mark. The
server reports each change of this setting unasked, also the one back, so to look at it costs no round trip. A second
setting is asked for only if the first one differs: a listener may have changed it. On SQLite, which tells its client
every statement, the sign is the number of transactions that the connection has begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from outbox.inbox import connection_of, mark_returning
from outbox.tables import tables
from relay.observe.logging import redacted

log = structlog.get_logger("relay")

SIGN = " (in a listener)"
_LONGEST = 63 - len(SIGN)  # PostgreSQL cuts an application_name to 63 bytes
_SETTING = "outbox.in_a_listener"
_BEGUN = "transactions begun"  # in the information about a connection

_NAME = sa.func.left(sa.func.current_setting("application_name"), _LONGEST)
_SIGNS = (
    sa.func.set_config("application_name", _NAME.op("||")(SIGN), True),
    sa.func.set_config(_SETTING, "yes", True),
)
# What distinguishes a call's mark from that of another call: the value when it is written, and its column.
_MY_TRANSACTION: sa.ColumnElement[str] = sa.literal_column("CAST(CAST(pg_current_xact_id() AS xid) AS text)", sa.Text)
_ITS_TRANSACTION: sa.ColumnElement[str] = sa.literal_column("CAST(xmin AS text)", sa.Text)
_DONE_AT: sa.ColumnElement[str] = sa.literal_column("done_at", sa.Text)


class InboxMark:
    """The inbox mark of one call.

    Args:
        listener: The listener's name in the inbox.
        message_id: The message's id.

    Attributes:
        has_lost_its_transaction: Whether the transaction of the mark had ended when the listener had.
    """

    def __init__(self, listener: str, message_id: str) -> None:
        self._listener, self._message_id = listener, message_id
        self.has_lost_its_transaction = False

    def make(self, session: Session) -> bool:
        """Write the mark, with its sign; return ``False`` if the listener has processed the message before."""
        connection = self._connection = connection_of(session, None)
        returning = (_MY_TRANSACTION, *_SIGNS) if connection.dialect.name == "postgresql" else (_DONE_AT,)
        made = mark_returning(connection, self._listener, self._message_id, returning)
        self._begun = connection.info.get(_BEGUN)
        self._made = made[0] if made is not None else None
        return made is not None

    def look(self, _: object = None) -> None:
        """Note whether the transaction is still the one of the mark."""
        self.has_lost_its_transaction = not self._has_its_transaction()

    def remove(self, connection: sa.Connection) -> bool:
        """Remove the mark; return whether it was there: then its transaction had been committed.

        The mark of another call stays: after a lost connection, another relay may have called the listener again.
        """
        inbox = tables().inbox
        is_named = sa.and_(inbox.c.listener == self._listener, inbox.c.message_id == self._message_id)
        made = _ITS_TRANSACTION if connection.dialect.name == "postgresql" else _DONE_AT
        return connection.execute(sa.delete(inbox).where(is_named, made == self._made)).rowcount == 1

    @contextmanager
    def warning_if_it_may_stay(self) -> Iterator[None]:
        """Log it if the mark cannot be removed, for example because the role lacks the right to."""
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
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name != "postgresql":
            return bool(driver.in_transaction) and connection.info.get(_BEGUN) == self._begun
        if driver.closed or (driver.info.parameter_status("application_name") or "").endswith(SIGN):
            return not driver.closed
        with closing(connection.connection.cursor()) as cursor, suppress(connection.dialect.loaded_dbapi.Error):
            cursor.execute(f"SELECT current_setting('{_SETTING}', true)")
            return bool(cursor.fetchone() == ("yes",))
        return False


def count_transactions(engine: sa.Engine) -> None:
    """Make each SQLite connection of an engine count the transactions that it begins."""

    def on_connect(connection: Any, record: Any) -> None:
        record.info[_BEGUN] = 0

        def trace(statement: str) -> None:
            if statement[:5].upper() == "BEGIN":
                record.info[_BEGUN] += 1

        if engine.dialect.is_async:
            connection.run_async(lambda driver: driver.set_trace_callback(trace))
        else:
            connection.set_trace_callback(trace)

    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", on_connect)
