"""A worker's day from a seed: transactions that commit, and some that do not, with and without ordering keys."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from outbox import Draft, emit_many

PAUSE_S = 0.01  # between two transactions: some hundreds of messages per second are enough load
RESULTS = "CREATE TABLE result (n INTEGER PRIMARY KEY, message_id VARCHAR(36) NOT NULL)"


class Workload:
    """Writes results and messages; each result names its message, so the database itself says what was committed.

    A share of the messages has one of `key_count` ordering keys. A key's messages are numbered upwards, transaction by
    transaction, so there is one right order.
    """

    def __init__(self, engine: Engine, seed: int, *, key_count: int = 40, key_share: float = 0.5) -> None:
        self.rolled_back: set[str] = set()
        self._engine = engine
        self._chance = random.Random(seed)
        self._key_count, self._key_share = key_count, key_share
        self._next = 0
        with engine.begin() as connection:
            connection.execute(text(RESULTS))

    def commit(self, count: int) -> None:
        """Commit `count` messages in transactions of one to ten, and roll back about every sixth transaction."""
        left = count
        while left:
            size = min(self._chance.randint(1, 10), left)
            with self._engine.connect() as connection:
                ids = self._write(connection, size)
                if self._chance.random() < 1 / 6:
                    connection.rollback()
                    self.rolled_back.update(ids)
                else:
                    connection.commit()
                    left -= size

    def try_to_commit(self, size: int = 5) -> bool:
        """Run a transaction against a server that may go down; return ``False`` if it did, with an unknown outcome."""
        try:
            with self._engine.begin() as connection:
                self._write(connection, size)
        except DBAPIError:
            return False
        return True

    def committed(self) -> dict[str, int]:
        """Return message id → number of what was committed."""
        with self._engine.begin() as connection:
            return {row.message_id: row.n for row in connection.execute(text("SELECT n, message_id FROM result"))}

    def _write(self, connection: Connection, size: int) -> list[str]:
        numbers = range(self._next, self._next + size)
        self._next += size
        ids = emit_many(connection, [self._draft(n) for n in numbers])
        rows = [{"n": n, "id": message_id} for n, message_id in zip(numbers, ids, strict=True)]
        connection.execute(text("INSERT INTO result (n, message_id) VALUES (:n, :id)"), rows)
        return ids

    def _draft(self, n: int) -> Draft:
        chance = self._chance
        key = f"k-{chance.randrange(self._key_count)}" if chance.random() < self._key_share else None
        return Draft("extraction.completed", {"n": n}, ordering_key=key)


@contextmanager
def under_load(workload: Workload) -> Iterator[None]:
    """Commits in a loop, and tries again while the server is away."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(PAUSE_S):
            workload.try_to_commit()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
