"""Whether a call that takes too long may still commit: decided once, by whichever comes first."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import sqlalchemy as sa

# What is set already is kept where it is shorter; 0 stands for no limit.
LIMIT = sa.text(
    "SELECT set_config(name, :limit, true)"
    " FROM unnest(ARRAY['statement_timeout', 'idle_in_transaction_session_timeout']) AS name"
    " WHERE current_setting(name)::interval NOT BETWEEN interval '1 ms' AND CAST(:limit AS interval)"
)


class Overran(Exception):
    """The deadline came before the commit, which is not made then."""


class Fence:
    """Stands between a call and its commit.

    A thread cannot be stopped. But one that overran must not commit after its caller was told that nothing was done;
    and once it is committing, its caller has to wait for how that ends.

    Args:
        timeout_s: How long the call may take.
        tells_database: Whether the database is told, too, which costs a round trip.
    """

    def __init__(self, timeout_s: float, *, tells_database: bool = True) -> None:
        self._timeout_s = timeout_s
        self._tells_database = tells_database
        self._lock = Lock()
        self._is_committing = self._is_closed = False

    def close(self) -> bool:
        """The deadline has come; whether that is before the commit, which will not be made then."""
        with self._lock:
            self._is_closed = not self._is_committing
            return self._is_closed

    def pass_through(self) -> None:
        """Commit next.

        Raises:
            Overran: The deadline came first.
        """
        with self._lock:
            if self._is_closed:
                raise Overran
            self._is_committing = True

    def reopen(self) -> bool:
        """Take back that a commit comes next, because it failed; return whether there is time for another try."""
        with self._lock:
            self._is_committing = False
            return not self._is_closed

    def limit(self, execute: Callable[..., object], *, is_postgres: bool) -> None:
        """Have the database end what hangs, in a statement or between two: its locks would hold up the next attempt."""
        if is_postgres and self._tells_database:
            execute(LIMIT, {"limit": f"{max(int(self._timeout_s * 1000), 1)}ms"})
