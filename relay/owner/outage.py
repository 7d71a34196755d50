"""What keeps a relay from its database: said once when it comes, and once when it is over."""

from __future__ import annotations

import random

import structlog

from relay.decide.backoff import Policy, half_jittered
from relay.decide.outcome import fingerprint
from relay.platform.database import is_refusal
from relay.store.contract import Full, Lost, Standby

log = structlog.get_logger("relay")

# Tried again sooner than AFTER_RESTART_S (relay.owner.shards): whoever comes later finds its shards taken.
RECONNECT = Policy(backoff_s=0.2, backoff_max_s=1.5)


def reconnect_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return half_jittered(RECONNECT.ceiling_s(failures), random.random())  # noqa: S311


class Trouble:
    """The trouble that a relay has with its sessions.

    Attributes:
        reason: What it is; ``None`` while there is none.
        is_standing_by: Whether it is only that nothing can be owned here now.
    """

    def __init__(self) -> None:
        self.reason: str | None = "not connected yet"
        self.is_standing_by = False
        self._said: set[tuple[str, str | None]] = set()
        self._failures = 0

    @property
    def pause_s(self) -> float:
        """Seconds to wait before the next session."""
        return reconnect_s(self._failures)

    def connected(self) -> None:
        """There is a session. After trouble it has to show first that it is good for something."""
        if not self._said:
            self.reason = None

    def over(self) -> None:
        """A whole turn has worked, writing included: whatever the trouble was, it is over."""
        if self._said:
            log.info("database_back")
            self._said.clear()
        self.reason = None
        self.is_standing_by = False
        self._failures = 0

    def add(self, error: Exception, *, owned: int) -> None:
        """A session came to nothing, or was lost while it owned so many shards."""
        self._failures += 1
        self.reason = str(error) or type(error).__name__
        self.is_standing_by = isinstance(error, Standby)
        cause = fingerprint(self.reason) if not isinstance(error, Lost) or is_refusal(error) else None
        what = type(error).__name__, cause
        if what not in self._said:
            self._said.add(what)
            self._say(error, owned)

    def _say(self, error: Exception, owned: int) -> None:
        if self.is_standing_by:
            log.warning("waiting", reason=self.reason)
        elif isinstance(error, Full):
            log.error("database_full", reason=self.reason, owned=owned)
        elif isinstance(error, Lost):
            log.warning("database_lost", reason=self.reason, owned=owned)
        else:
            log.error("session_broke", exc_info=error)
