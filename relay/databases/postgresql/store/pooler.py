"""Detect a pooler that changes the session between transactions.

In session mode a pooler does not do that, and a relay works. In transaction mode each transaction may get another
session of the server. Locks and settings then stay with the earlier session, which other clients may get. A pooler
invents the process id that it reports to a client; if that id equals the one that the server reports, there is no
pooler. Otherwise two open connections decide: in session mode each connection keeps its own session, with the same
process id in each transaction.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import closing
from time import monotonic
from typing import Any

import psycopg

from outbox.errors import Unusable

ROUNDS = 5  # other clients of the pool may hide a change for a moment
PATIENCE_S = 2.0

Connect = Callable[[], psycopg.Connection[Any]]


def refuse_transaction_pooling(connection: psycopg.Connection[Any], connect: Connect) -> None:
    """Make sure that the connection's session is its own.

    Args:
        connection: The connection to check, in autocommit mode.
        connect: Makes another connection in the same way.

    Raises:
        Unusable: There is a pooler in transaction mode.
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
    """Return whether two connections got the same session, or the first connection changed its session."""
    mine = _session(connection)
    theirs = _session_in_transaction(other)
    moved = theirs is not None and _session(connection) != mine
    if theirs is not None:
        other.pgconn.exec_(b"ROLLBACK")
    return moved or theirs == mine


def _session(connection: psycopg.Connection[Any]) -> int:
    ((pid,),) = connection.execute("SELECT pg_backend_pid()", prepare=False)
    return int(pid)


def _session_in_transaction(other: psycopg.Connection[Any]) -> int | None:
    """Return the process id in an open transaction; ``None`` if a pool in session mode has no free session."""
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
