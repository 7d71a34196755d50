"""What operators took back, from the side of the owning thread: told to the event loop, then finished in the table.

The event loop lets go of what it has not begun to send (`relay.delivery.withdrawals`) and answers with the deliveries
of which it has nothing any more. Those are finished. What it holds is asked for again, until it is settled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.seam import OwnersSeam

LOOK_AGAIN_S = 0.1  # between two questions after what was under way

Delivery = tuple[str, str]  # (message, destination)


class Withdrawals:
    """What was discarded or cancelled, and is not finished in this session yet.

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
        """Whether any can be finished as soon as the event loop has answered."""
        return self._posted > self._answered or bool(self._absent)

    @property
    def are_pending(self) -> bool:
        """Whether any is to be finished, or is still in the event loop's memory."""
        return self.are_due or self._is_any_held

    def post(self, deliveries: Sequence[Delivery]) -> None:
        """Have the event loop let go of these deliveries."""
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
