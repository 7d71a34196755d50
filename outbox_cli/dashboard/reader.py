"""Query the database for the pages: few connections, short queries, and one answer for all equal queries.

A question's queries run in a read-only snapshot, for at most `TIMEOUT_S`, so no page can hold up a relay. The answer is
kept for a second, so any number of people on the same page cause one query a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from outbox.errors import Unusable
from relay.admin.access.deadline import TooMuch, translated, watch, within
from relay.admin.access.opening import reaching
from relay.admin.access.queries import snapshot
from relay.databases.database import close_engine
from relay.databases.dialect import dialect_of
from relay.settings import Settings

FRESH_S = 1.0
TIMEOUT_S = 2.0
EXACT_S = 0.1  # how long an exact answer may take, if there is a cheaper one
CONNECTIONS = 2
ANSWERS = 256  # the number of answers in memory at once

T = TypeVar("T")


@dataclass
class _Answer:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    error: Exception | None = None
    at: float = float("-inf")


class Reader:
    """Answers questions about one outbox.

    Args:
        settings: The settings of the database.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = settings.database.engine(
            prepares=False, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=10, pool_pre_ping=True
        )
        settings.database.dialect.accept_any_bytes(self.engine)
        watch(self.engine)
        self._answer = lru_cache(ANSWERS)(lambda key: _Answer())
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections: those in use, by a job or a read in the background, when they are returned."""
        close_engine(self.engine)

    def ask(
        self,
        key: Hashable,
        question: Callable[[sa.Connection], T],
        *,
        timeout_s: float = TIMEOUT_S,
        fresh_s: float = FRESH_S,
    ) -> T:
        """Return the answer to a query, at most a second old.

        Args:
            key: Identifies the query.
            question: The query, as a function of a connection.
            timeout_s: How long its statements may take together, in seconds.
            fresh_s: How old the answer may be, in seconds; by default one second.

        Raises:
            TooMuch: They take longer.
            Unusable: The database cannot be reached.
        """
        with self._lock:  # two callers at the same time get the same answer
            answer = self._answer(key)
        with answer.lock:
            if time.monotonic() - answer.at > (fresh_s if answer.error is None else FRESH_S):
                self._find(answer, question, timeout_s)
            if answer.error is not None:
                raise answer.error
            return cast("T", answer.value)

    def ask_or(
        self,
        key: Hashable,
        question: Callable[[sa.Connection], T],
        cheaper: Callable[[sa.Connection], T],
        *,
        timeout_s: float,
    ) -> T:
        """Return the answer to a query; if it takes too long, the answer to a cheaper one.

        Args:
            key: Identifies both queries.
            question: The query, as a function of a connection.
            cheaper: Another query, which examines less.
            timeout_s: How long the first query may take, in seconds.

        Raises:
            TooMuch: The cheaper one takes too long, too.
            Unusable: The database cannot be reached.
        """
        try:
            return self.ask(key, question, timeout_s=timeout_s)
        except TooMuch:
            return self.ask(("cheaper", key), cheaper)

    def forget(self) -> None:
        """Forget all answers, after a change."""
        self._answer.cache_clear()

    @contextmanager
    def connected(self, timeout_s: float = TIMEOUT_S) -> Iterator[sa.Connection]:
        """Yield a connection with a read-only snapshot, and a limit for each statement's time if the server has one."""
        self.settings.require_database_file()
        with reaching(self.settings.database), translated(), snapshot(self.engine) as connection:
            dialect_of(connection).bound(connection, timeout_s)
            yield connection

    def _find(self, answer: _Answer, question: Callable[[sa.Connection], Any], timeout_s: float) -> None:
        answer.value, answer.error = None, None
        try:
            with self.connected(timeout_s) as connection, within(connection, timeout_s):
                answer.value = question(connection)
        except (Unusable, TooMuch) as error:
            answer.error = error
        except sa.exc.TimeoutError:
            answer.error = TooMuch("the dashboard is busy: try again")
        answer.at = time.monotonic()
