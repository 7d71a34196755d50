"""Finish the deliveries that operators took back: report them to the event loop, then finish them in the table.

The event loop releases those that it has not begun to send (`relay.delivery.dispatcher`), and answers with the
deliveries that it does not hold any more. The owning thread finishes these. It asks again for the remaining deliveries
until they are settled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from relay.decide.failures.crashes import Delivery
from relay.seam import OwnersSeam

LOOK_AGAIN_S = 0.1  # between two questions about deliveries under way


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
        self._held: set[Delivery] = set()  # under way, or waiting to be settled
        self._absent: set[Delivery] = set()

    @property
    def are_due(self) -> bool:
        """Whether some deliveries can be finished as soon as the event loop has answered."""
        return self._posted > self._answered or bool(self._absent)

    @property
    def are_pending(self) -> bool:
        """Whether some deliveries have to be finished, or are still in the event loop's memory."""
        return self.are_due or bool(self._held)

    def post(self, deliveries: Collection[Delivery]) -> None:
        """Have the event loop release these deliveries, and those that it still held when it last answered."""
        self._posted += 1
        self._posted_at = self._clock()
        self._seam.tell.withdraw(self._held.union(deliveries), self._epoch)

    def take(self) -> list[Delivery]:
        """Return the deliveries that can be finished now."""
        answers = self._seam.heard.withdrawn
        while answers:
            answer = answers.popleft()
            if answer.epoch == self._epoch:
                self._absent |= set(answer.absent)
                self._held = self._held.difference(answer.absent).union(answer.held)
                self._answered += 1  # must come last: a drain looks at `are_pending` from the event loop
        if self._held and self._clock() - self._posted_at > LOOK_AGAIN_S:
            self.post([])
        absent, self._absent = list(self._absent), set()
        return absent
