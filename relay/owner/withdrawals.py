"""Deliveries that operators took back, in the owning thread: reported to the event loop, then finished in the table.

The event loop releases those that it has not begun to send (`relay.delivery.withdrawals`), and answers with the
deliveries that it does not hold any more. These are finished. The others are asked for again, until they are settled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.seam import OwnersSeam

LOOK_AGAIN_S = 0.1  # between two questions about deliveries under way

Delivery = tuple[str, str]  # (message, destination)


class Withdrawals:
    """The discarded or cancelled deliveries that this session has not finished yet.

    Args:
        epoch: The session's number.
        seam: Reaches the event loop.
        clock: The time, in seconds.
    """

    def __init__(self, epoch: int, seam: OwnersSeam, clock: Callable[[], float]) -> None:
        self._epoch, self._seam, self._clock = epoch, seam, clock
        self._posted = self._answered = 0
        self._posted_at = 0.0
        self._is_any_held = False
        self._absent: list[Delivery] = []

    @property
    def are_due(self) -> bool:
        """Whether some can be finished as soon as the event loop has answered."""
        return self._posted > self._answered or bool(self._absent)

    @property
    def are_pending(self) -> bool:
        """Whether some are to be finished, or are still in the event loop's memory."""
        return self.are_due or self._is_any_held

    def post(self, deliveries: Sequence[Delivery]) -> None:
        """Have the event loop release these deliveries."""
        self._posted += 1
        self._posted_at = self._clock()
        self._seam.tell.withdraw(deliveries, self._epoch)

    def take(self) -> list[Delivery]:
        """Return the deliveries that are to be finished now."""
        self._hear()
        if self._is_any_held and self._clock() - self._posted_at > LOOK_AGAIN_S:
            self.post([])
        absent, self._absent = self._absent, []
        return absent

    def _hear(self) -> None:
        answers = self._seam.heard.withdrawn
        while answers:
            answer = answers.popleft()
            if answer.epoch == self._epoch:
                self._absent += answer.absent
                self._is_any_held = answer.is_any_held
                self._answered += 1  # last: a drain looks at `are_pending` from the event loop
