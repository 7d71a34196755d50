"""Whether an entry may still be sent: its session still owns the shard, and its time has not passed."""

from __future__ import annotations

from relay.decide.verdict import EXPIRED, PARKED, Verdict
from relay.seam import Entry
from relay.store.rows import EXPIRES_AT


class Validity:
    """The current session and the database's clock, as one destination knows them.

    Args:
        expires_in_s: The age in seconds at which the destination does not want a message any more; ``None``: no limit.
    """

    def __init__(self, expires_in_s: float | None) -> None:
        self._expires_in_s = expires_in_s
        self._epoch = 0
        self._clock_offset_s: float | None = None  # the database's clock minus ours

    def begin_session(self, epoch: int) -> None:
        """Note a new session: entries of an earlier one are not sent any more."""
        self._epoch = epoch

    def set_clock(self, offset_s: float) -> None:
        """Set the difference between the database's clock and the relay's, in seconds."""
        self._clock_offset_s = offset_s

    def verdict(self, entry: Entry, now: float) -> Verdict | None:
        """Return the verdict on an entry that may not be sent any more; ``None`` for one that may.

        An entry of an ended session is read again.
        """
        if entry.epoch != self._epoch:
            return PARKED
        if self._expires_in_s is None and entry.row[EXPIRES_AT] is None:
            return None
        return EXPIRED if self._is_expired(entry, now) else None

    def _is_expired(self, entry: Entry, now: float) -> bool:
        offset_s = self._clock_offset_s
        return offset_s is not None and now + offset_s >= entry.expires_at_s(self._expires_in_s)
