"""Log the time in which a relay has no database: one line when it begins, one for each new cause, one when it ends."""

from __future__ import annotations

import random

import structlog

from relay.databases.store.contract import Damaged, Full, Lost, Refused, Standby
from relay.decide.backoff import Policy, half_jittered
from relay.decide.outcome import fingerprint

log = structlog.get_logger("relay")

# Shorter than AFTER_RESTART_S (relay.owner.shards): a relay that reconnects after that time finds its shards taken.
RECONNECT = Policy(backoff_s=0.2, backoff_max_s=1.5)


def reconnect_s(failures: int) -> float:
    """Return how many seconds to wait after this number of failures in a row."""
    return half_jittered(RECONNECT.ceiling_s(failures), random.random())  # noqa: S311


class Outage:
    """An outage of the database, from the first failure to the first turn that works.

    Attributes:
        reason: The cause; ``None`` while there is no outage.
        failures: How often a session was lost or could not be opened since the last turn that worked.
        is_standing_by: Whether the only cause is that this relay cannot own any shard of this database now.
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
        if any(what != Standby.__name__ for what, _ in self._said):
            log.info("database_back")
        self._said.clear()
        self.reason = None
        self.is_standing_by = False
        self.failures = 0

    def add(self, error: Exception, *, owned: int) -> None:
        """Note that a session could not be opened, or that a session which owned this number of shards was lost."""
        self.failures += 1
        self.reason = str(error) or type(error).__name__
        self.is_standing_by = isinstance(error, Standby)
        is_usual = isinstance(error, Lost) and not isinstance(error, Refused)
        cause = None if is_usual else fingerprint(self.reason)
        what = type(error).__name__, cause
        if what not in self._said:
            self._said.add(what)
            self._say(error, owned)

    def _say(self, error: Exception, owned: int) -> None:
        if self.is_standing_by:
            log.warning("waiting", reason=self.reason)
        elif isinstance(error, Full):
            log.error("database_full", reason=self.reason, owned=owned)
        elif isinstance(error, Damaged):
            log.error("database_damaged", reason=self.reason, owned=owned)
        elif isinstance(error, Lost):
            log.warning("database_lost", reason=self.reason, owned=owned)
        else:
            log.error("session_broke", exc_info=error)
