"""The messages that a session has accepted, until they are written.

`emit` on a session returns an id before anything is written. From then on the message belongs to the transaction: the
commit writes it or fails, and a rollback removes it. The list of accepted messages is therefore kept here, beside the
session, where no operation on the session's objects reaches it.

A session flushes only if it holds something to flush. So it also gets a *marker*: an instance of a mapped class
without a table. The flush inserts nothing for it, but calls `before_insert` for it, in the flush's order and on the
flush's connection; that listener writes the messages. A host may remove the marker from the session, as with
`expunge_all()`. Listeners check for messages that are left at each of these moments:

| moment                       | what happens                                                            |
|------------------------------|-------------------------------------------------------------------------|
| the session commits          | the marker is put back: the flush of this commit writes the messages    |
| a savepoint begins           | they are written before it, so its rollback does not undo them          |
| a connection commits         | they are written just before the commit, in any code that calls it      |
| a commit had no connection   | it fails: nothing else was committed                                    |
| the transaction ends         | they are dropped; but if the session had only joined a transaction that |
|                              | continues, they are written into it, like the session's own statements  |

The listeners are on `Session` itself, once per process: listeners on each instance cost more than writing a message.

Source: https://docs.sqlalchemy.org/en/20/orm/session_events.html
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, ref

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session, SessionTransaction, object_session, registry

from outbox.draft import Prepared
from outbox.errors import NoTransaction
from outbox.writing.columns import message_table
from outbox.writing.observing import observers
from outbox.writing.rows import write

_numbers = count(1)


class Marker:
    """Makes a session flush. It is mapped like a row of ``outbox_message``, but no row is inserted for it."""

    __tablename__: ClassVar[str] = "outbox_message"
    schema: ClassVar[str | None]

    def __init__(self) -> None:
        self.id = next(_numbers)


class _Accepted(NamedTuple):
    message: Prepared
    schema: str | None
    transaction: SessionTransaction | None


class _Ledger:
    """The messages that one session has accepted and not written."""

    def __init__(self, session: Session) -> None:
        self._session = ref(session)
        self._entries: list[_Accepted] = []
        self._markers: dict[str | None, Marker] = {}
        self._watched: WeakSet[sa.Connection] = WeakSet()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def waits(self, message_id: str) -> bool:
        return self._session() is not None and any(each.message.id == message_id for each in self._entries)

    def accept(self, session: Session, schema: str | None, messages: Sequence[Prepared]) -> None:
        self.mark(session, schema)  # this also begins the transaction
        transaction = session.get_nested_transaction() or session.get_transaction()
        self._entries.extend(_Accepted(each, schema, transaction) for each in messages)
        for connection in _connections.get(session, ()):
            self.watch(connection)

    def mark(self, session: Session, schema: str | None) -> None:
        marker = self._markers.get(schema)
        if marker is None or not sa.inspect(marker).pending:
            self._markers[schema] = marker = _marker_class(schema)()
            session.add(marker)

    def mark_again(self, session: Session) -> None:
        for schema in self._schemas:
            self.mark(session, schema)

    def watch(self, connection: sa.Connection) -> None:
        """Make the connection's commit write the messages that are still left."""
        if connection not in self._watched:
            self._watched.add(connection)
            sa.event.listen(connection, "commit", self._write_before_commit)

    def write(self, connection: sa.Connection, schema: str | None) -> None:
        """Write the messages accepted for one outbox. A message that cannot be written stays, so no commit succeeds."""
        messages = [each.message for each in self._entries if each.schema == schema]
        if not messages:
            return
        write(connection, schema, messages)
        written = {each.id for each in messages}
        self._entries = [each for each in self._entries if each.schema != schema or each.message.id not in written]
        self._markers.pop(schema, None)

    def write_on(self, transaction: SessionTransaction) -> None:
        for schema in self._schemas:
            mapper, clause = _route(schema)
            self.write(transaction.connection(mapper, clause=clause), schema)

    def end(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self._entries = [each for each in self._entries if each.transaction is not transaction]
            return
        try:
            self._write_what_lives_on(session)
        finally:
            self._entries.clear()
            self._markers.clear()

    def _write_what_lives_on(self, session: Session) -> None:
        for connection, joined in _connections.get(session, {}).items():
            if joined is not None and joined.is_active:
                self._write_routed(session, connection)

    def _write_before_commit(self, connection: sa.Connection) -> None:
        session = self._session()
        if session is not None:
            self._write_routed(session, connection)

    def _write_routed(self, session: Session, connection: sa.Connection) -> None:
        """Write the messages that the session would write on this connection."""
        for schema in self._schemas:
            mapper, clause = _route(schema)
            if session.get_bind(mapper, clause=clause) in (connection, connection.engine):
                self.write(connection, schema)

    @property
    def _schemas(self) -> list[str | None]:
        return list(dict.fromkeys(each.schema for each in self._entries))


_ledgers: WeakKeyDictionary[Session, _Ledger] = WeakKeyDictionary()
# The connections of each session's transaction, each with its innermost transaction when the session began on it.
_connections: WeakKeyDictionary[Session, dict[sa.Connection, sa.Transaction | None]] = WeakKeyDictionary()


def accept(session: Session, schema: str | None, messages: Sequence[Prepared]) -> None:
    """Make the session write the messages with its next flush, in the order of the calls.

    Raises:
        NoTransaction: The session's transaction has ended or failed.
    """
    if not session.is_active:
        raise NoTransaction(
            "the session's transaction has ended or failed, so a message could not be committed with it: emit "
            "before the commit and not in an after_commit hook; after an error, roll the session back first"
        )
    ledger = _ledgers.get(session)
    if ledger is None:
        ledger = _ledgers[session] = _Ledger(session)
    ledger.accept(session, schema, messages)
    for observer in observers:
        observer.emitted(messages, ledger.waits)


@cache
def _marker_class(schema: str | None) -> type[Marker]:
    marker = type("OutboxMessage", (Marker,), {"schema": schema})
    nothing = sa.select(sa.literal(0, sa.Integer).label("id")).subquery("outbox_message")
    registry().map_imperatively(marker, nothing, primary_key=[nothing.c.id])
    sa.event.listen(marker, "before_insert", _write_marked)
    return marker


def _write_marked(_: Mapper[Any], connection: sa.Connection, marker: Marker) -> None:
    session = object_session(marker)
    if session is not None and (ledger := _ledgers.get(session)):
        ledger.write(connection, marker.schema)


def _route(schema: str | None) -> tuple[Mapper[Any], sa.Insert]:
    """Return the arguments by which a session chooses a connection: the marker's mapper (as in a flush), an INSERT."""
    return sa.inspect(_marker_class(schema)), message_table(schema).insert()


# ------------------------------------------------------------------------------------------ what sessions tell


@sa.event.listens_for(Session, "after_begin")
def _remember(session: Session, transaction: SessionTransaction, connection: sa.Connection) -> None:
    if transaction.parent is not None:
        return
    innermost = connection.get_nested_transaction() or connection.get_transaction()
    _connections.setdefault(session, {})[connection] = innermost
    if ledger := _ledgers.get(session):
        ledger.watch(connection)


@sa.event.listens_for(Session, "before_commit")
def _mark_again(session: Session) -> None:
    if ledger := _ledgers.get(session):
        ledger.mark_again(session)


@sa.event.listens_for(Session, "after_commit")
def _insist(session: Session) -> None:
    if _ledgers.get(session) and session.get_nested_transaction() is None:
        raise NoTransaction(
            "a before_flush hook removed messages from this session, and nothing was committed: do not expunge "
            "objects that the hook does not know"
        )


@sa.event.listens_for(Session, "after_transaction_create")
def _write_before_savepoint(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested and (ledger := _ledgers.get(session)) and transaction.parent is not None:
        ledger.write_on(transaction.parent)


@sa.event.listens_for(Session, "after_transaction_end")
def _end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None and not transaction.nested:
        return
    if ledger := _ledgers.get(session):
        ledger.end(session, transaction)
    if transaction.parent is None:
        _connections.pop(session, None)
