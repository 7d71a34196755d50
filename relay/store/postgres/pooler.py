"""Find out whether a pooler stands between the relay and the server, and changes the session between transactions.

In session mode it does not, and everything works. In transaction mode each transaction may meet another session of the
server: locks and settings stay behind with the one before, where any client may meet them. A pooler invents the key by
which a client may cancel, process id included; if that agrees with what the server says, there is none.

Otherwise two connections show it: while both are open, a session that belongs to one of them is never met on the other,
and keeps its process id from transaction to transaction.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import closing
from time import monotonic
from typing import Any

import psycopg

from outbox.errors import Unusable

ROUNDS = 5  # others may use the pool, too, and hide it for a moment
PATIENCE_S = 2.0

Connect = Callable[[], psycopg.Connection[Any]]


def refuse_transaction_pooling(connection: psycopg.Connection[Any], connect: Connect) -> None:
    """Make sure that the connection's session is its own.

    Args:
        connection: The one to be looked at; in autocommit mode.
        connect: Makes another one, on the same way.

    Raises:
        Unusable: A pooler in transaction mode stands in between.
    """
    if _session(connection) == connection.info.backend_pid:
        return
    with closing(connect()) as other:
        if any(_meet(connection, other) for _ in range(ROUNDS)):
            raise Unusable(
                "the relay's connection goes through a pooler in transaction mode (PgBouncer, say), which cannot hold "
                "its locks: point OUTBOX_DATABASE_URL at the database itself, or at a pooler in session mode; workers "
                "may stay behind it"
            )


def _meet(connection: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """Return whether two connections have met in one session, or the first has changed its own."""
    mine = _session(connection)
    theirs = _session_in_transaction(other)
    moved = theirs is not None and _session(connection) != mine
    if theirs is not None:
        other.pgconn.exec_(b"ROLLBACK")
    return moved or theirs == mine


def _session(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    assert row is not None
    return int(row[0])


def _session_in_transaction(other: psycopg.Connection[Any]) -> int | None:
    """That of a transaction which stays open; ``None`` where there is none to be had: one of a pool in session mode."""
    pgconn = other.pgconn
    pgconn.send_query(b"BEGIN; SELECT pg_backend_pid()")
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    deadline = monotonic() + PATIENCE_S
    while pgconn.is_busy():
        if not poll.poll(max(deadline - monotonic(), 0) * 1000):
            return None
        pgconn.consume_input()
    found = None
    while result := pgconn.get_result():
        if result.ntuples:
            found = int(result.get_value(0, 0) or 0)
    return found
