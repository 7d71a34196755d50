"""Decide once whether an overrunning call may still commit: the commit or the deadline wins."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from relay.databases.dialect import dialect_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Overran(Exception):
    """The deadline passed before the commit, so there is no commit."""


class CommitGate:
    """Guards the commit of a call.

    A thread cannot be stopped. But an overrunning call must not commit after its caller was told that nothing was done.
    And if the commit has begun, the caller has to wait for its result.

    Args:
        timeout_s: How long the call may take, in seconds.
        tells_database: Whether to tell the database the limit, too, which costs a round trip.
    """

    def __init__(self, timeout_s: float, *, tells_database: bool = True) -> None:
        self._timeout_s = timeout_s
        self._tells_database = tells_database
        self._lock = Lock()
        self._is_committing = self._is_closed = False

    def close(self) -> bool:
        """Declare that the deadline has passed; return whether the commit had not begun: then it will not be made."""
        with self._lock:
            self._is_closed = not self._is_committing
            return self._is_closed

    def pass_through(self) -> None:
        """Begin to commit.

        Raises:
            Overran: The deadline passed first.
        """
        with self._lock:
            if self._is_closed:
                raise Overran
            self._is_committing = True

    def reopen(self) -> bool:
        """Note that the commit failed; return whether there is time for another try."""
        with self._lock:
            self._is_committing = False
            return not self._is_closed

    def limit(self, session: Session) -> None:
        """Limit how long a statement, or a pause between two, may take: its locks would hold up the next attempt."""
        if self._tells_database:
            connection = session.connection()
            dialect_of(connection).limit_call(connection, self._timeout_s)
