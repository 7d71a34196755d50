"""The time in which a relay has no database: one log line when it begins, one for each new cause, one when it ends."""

from __future__ import annotations

import random

import structlog

from relay.decide.backoff import Policy, half_jittered
from relay.decide.outcome import fingerprint
from relay.platform.database import is_refusal
from relay.store.contract import Full, Lost, Standby

log = structlog.get_logger("relay")

# Shorter than AFTER_RESTART_S (relay.owner.shards): a relay that reconnects after that time finds its shards taken.
RECONNECT = Policy(backoff_s=0.2, backoff_max_s=1.5)


def reconnect_s(failures: int) -> float:
    """Return the seconds to wait after this number of failures in a row."""
    return half_jittered(RECONNECT.ceiling_s(failures), random.random())  # noqa: S311


class Outage:
    """An outage of the database, from the first failure to the first turn that works.

    Attributes:
        reason: The cause; ``None`` while there is no outage.
        failures: How often a session could not be opened or was lost, since the last turn that worked.
        is_standing_by: Whether the only cause is that this relay can own no shard of this database now.
    """

    def __init__(self) -> None:
        self.reason: str | None = "not connected yet"
        self.is_standing_by = False
        self._said: set[tuple[str, str | None]] = set()
        self.failures = 0

    @property
    def pause_s(self) -> float:
        """Seconds to wait before the next session."""
        return reconnect_s(self.failures)

    def connected(self) -> None:
        """Note that there is a session. After a failure, only a turn that works ends the outage."""
        if not self._said:
            self.reason = None

    def end(self) -> None:
        """Note that a whole turn has worked, including a write."""
        if self._said:
            log.info("database_back")
            self._said.clear()
        self.reason = None
        self.is_standing_by = False
        self.failures = 0

    def add(self, error: Exception, *, owned: int) -> None:
        """Note that no session could be opened, or that one was lost while it owned this number of shards."""
        self.failures += 1
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
