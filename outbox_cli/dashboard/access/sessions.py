"""Sessions: a random id in a cookie, and all data in this process's memory. A restart ends all sessions."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from outbox_cli.dashboard.access.tokens import Role

LENGTH_S = 12 * 3600.0
AT_MOST = 1000


@dataclass(frozen=True)
class Session:
    """One login.

    Args:
        id: The value of the cookie.
        name: The person's name, as the person entered it.
        role: The role of the token.
        ends_at: When it ends, by the clock of `Sessions`.
    """

    id: str
    name: str
    role: Role
    ends_at: float


class Sessions:
    """The sessions of one dashboard.

    Args:
        clock: Returns the time in seconds; it never goes back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, name: str, role: Role) -> Session:
        """Begin a session. If there are too many, the oldest one ends."""
        session = Session(secrets.token_urlsafe(32), name, role, self._clock() + LENGTH_S)
        self._sessions[session.id] = session
        while len(self._sessions) > AT_MOST:
            self._sessions.popitem(last=False)
        return session

    def find(self, id_: str) -> Session | None:
        """Return the session of a cookie, unless it has ended."""
        session = self._sessions.get(id_)
        if session is not None and session.ends_at < self._clock():
            self.end(id_)
            return None
        return session

    def end(self, id_: str) -> None:
        """End a session."""
        self._sessions.pop(id_, None)
