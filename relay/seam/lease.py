"""Whether this relay may still send what it holds in memory."""

from __future__ import annotations

SHARE = 1 / 3  # of the lease in which a send may start after the last completed round trip
LONG_AGO = -1e9


class Lease:
    """What the relay knows of its ownership. Read by the event loop before each attempt.

    Args:
        lease_s: Seconds after which the server ends a session that says nothing.

    Attributes:
        epoch: The number of the session that owns, by the owning thread.
        arrived_epoch: The number of the session that the event loop has heard of.
    """

    def __init__(self, lease_s: float) -> None:
        self.epoch = self.arrived_epoch = 0
        self._valid_s = lease_s * SHARE
        self._round_trip_at = LONG_AGO
        self._is_ending = False

    def begin_session(self) -> int:
        """Return the number of a new session, which has proved nothing yet. Called by the owning thread."""
        self._round_trip_at = LONG_AGO
        self.epoch += 1
        return self.epoch

    def renew(self, asked_at: float) -> None:
        """Note that the server has answered a question that was asked then. Called by the owning thread.

        The lease runs from the question, not from the answer: the process may have slept before it read the answer.
        """
        self._round_trip_at = asked_at

    def lose(self) -> None:
        """Note that the session is lost. Called by the owning thread."""
        self._round_trip_at = LONG_AGO

    def arrive(self, epoch: int) -> None:
        """Note that the event loop has heard of this session. Called by the event loop."""
        self.arrived_epoch = epoch

    def end(self) -> None:
        """Start nothing any more: the relay stops."""
        self._is_ending = True

    def is_held(self, now: float) -> bool:
        """Return whether the relay knows, at this time, that it owns what it holds."""
        return now - self._round_trip_at < self._valid_s and self.arrived_epoch == self.epoch and not self._is_ending
