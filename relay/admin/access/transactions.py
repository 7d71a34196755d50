"""Change data by hand, in short transactions, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa

from relay.admin.audit import Action
from relay.databases.deadlock_retry import is_conflict, pauses_s
from relay.databases.dialect import dialect_of

BATCH = 500  # the most rows that one transaction changes, so that other sessions never wait long for our locks

T = TypeVar("T")


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction that will write."""
    with engine.connect() as connection:
        dialect_of(connection).begin_writing(connection)
        yield connection
        connection.commit()


def in_batches(
    engine: sa.Engine,
    page: Callable[[sa.Connection, Any], Sequence[Any]],
    write: Callable[[sa.Connection, Sequence[Any]], int],
    action: Action,
    on_progress: Callable[[int], object],
) -> int:
    """Change rows page by page, each page in a separate transaction; return the action's count.

    Args:
        engine: The outbox's database.
        page: Returns the rows that come after a row; for ``None``, the first rows.
        write: Changes these rows; returns the count to record.
        action: The action to record.
        on_progress: Called after each page with the count so far.
    """
    last: Any = None

    def run() -> Any:
        with transaction(engine) as connection:
            rows = page(connection, last)
            if not rows:
                return None
            action.add(connection, write(connection, rows))
            dialect_of(connection).nudge(connection)
            return rows[-1]

    while (last := insisting(run)) is not None:
        on_progress(action.count)
    return action.count


def insisting(work: Callable[[], T]) -> T:
    """Do the work; repeat it after a deadlock, because relays may lock the same rows in another order."""
    for pause_s in pauses_s():
        try:
            return work()
        except sa.exc.DBAPIError as error:
            if not is_conflict(error):
                raise
            time.sleep(pause_s)
    return work()
