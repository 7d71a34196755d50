"""Whether this relay may still send the entries in its memory."""

from __future__ import annotations

SHARE = 1 / 3  # of the lease: how long after the last round trip a send may start
LONG_AGO = -1e9


class Lease:
    """The relay's knowledge of its ownership. The event loop reads it before each attempt.

    Args:
        lease_s: Seconds after which the server ends a silent session.

    Attributes:
        epoch: The number of the owning session, set by the owning thread.
        arrived_epoch: The number of the session that has reached the event loop, set by the event loop.
        clock_offset_s: The database's clock minus the relay's, in seconds, set by the owning thread; ``None`` until the
            first beat.
    """

    def __init__(self, lease_s: float) -> None:
        self.epoch = self.arrived_epoch = 0
        self.clock_offset_s: float | None = None
        self._valid_s = lease_s * SHARE
        self._round_trip_at = LONG_AGO
        self._is_ending = False

    def begin_session(self) -> int:
        """Return the number of a new session, which is not known to be alive yet. Called by the owning thread."""
        self._round_trip_at = LONG_AGO
        self.epoch += 1
        return self.epoch

    def renew(self, asked_at: float) -> None:
        """Note that the server has answered a question that was asked at this time. Called by the owning thread.

        The lease runs from the question, not from the answer: the process may have slept before it read the answer.
        """
        self._round_trip_at = asked_at

    def lose(self) -> None:
        """Note that the session is lost. Called by the owning thread."""
        self._round_trip_at = LONG_AGO

    def end(self) -> None:
        """Permit no more sends, because the relay stops."""
        self._is_ending = True

    def is_held(self, now: float) -> bool:
        """Return whether the relay knows, at this time, that it owns its entries."""
        return now - self._round_trip_at < self._valid_s and self.arrived_epoch == self.epoch and not self._is_ending
