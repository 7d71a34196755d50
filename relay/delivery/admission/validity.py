"""Whether an entry may still be sent: its session still owns, and its time has not passed."""

from __future__ import annotations

from relay.decide.verdict import EXPIRED, PARKED, Verdict
from relay.seam import Entry


class Validity:
    """What one destination knows of the session that owns, and of the database's clock.

    Args:
        expires_in_s: Seconds after which the destination does not want a message any more; ``None``: it always does.
    """

    def __init__(self, expires_in_s: float | None) -> None:
        self._expires_in_s = expires_in_s
        self._epoch = 0
        self._clock_offset_s: float | None = None  # what to add to our clock to have the database's

    def begin_session(self, epoch: int) -> None:
        """Note that a new session owns: what another one read is not sent any more."""
        self._epoch = epoch

    def tell_time(self, offset_s: float) -> None:
        """Take in what to add to the relay's clock to have the database's, in seconds."""
        self._clock_offset_s = offset_s

    def verdict(self, entry: Entry, now: float) -> Verdict | None:
        """Return the verdict on an entry that may not be sent any more; ``None`` for one that may.

        What was under way when its session ended is read again.
        """
        if entry.epoch != self._epoch:
            return PARKED
        return EXPIRED if self._is_expired(entry, now) else None

    def _is_expired(self, entry: Entry, now: float) -> bool:
        if self._clock_offset_s is None or (self._expires_in_s is None and not entry.can_expire):
            return False
        return now + self._clock_offset_s >= entry.expires_at_s(self._expires_in_s)
