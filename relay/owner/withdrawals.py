"""What operators took back: let go of it in memory, then finish it in the table.

The owning thread finds it, and posts it to the event loop. There the lanes let go of what they have not begun to send,
and of what waits behind it in its key, which is read again. What is under way is not sent a second time: it is treated
like what a former session has read. When nothing in memory has a verdict on it any more, the owning thread finishes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Any

from relay.delivery.dispatcher import Dispatcher
from relay.delivery.entry import Entry
from relay.delivery.lane import Lane

LOOK_AGAIN_S = 0.1  # at what was under way
STALE = -1  # the epoch of an entry that is not sent again

Delivery = tuple[str, str]  # (message, destination)


class Withdrawals:
    """What was discarded or cancelled and is not finished yet.

    Args:
        dispatcher: What has messages in memory.
        on_loop: Runs a function on its event loop, later and in order.
    """

    def __init__(self, dispatcher: Dispatcher, on_loop: Callable[..., Any]) -> None:
        self._dispatcher, self._on_loop = dispatcher, on_loop
        self._posted = self._answered = 0
        self._posted_at = 0.0
        self._held: set[Delivery] = set()  # in memory: under way, or waiting to be settled
        self._absent: deque[Delivery] = deque()

    @property
    def are_due(self) -> bool:
        """Whether any is to be finished as soon as the event loop has answered."""
        return self._posted > self._answered or bool(self._absent)

    @property
    def are_pending(self) -> bool:
        """Whether any is to be finished, or still in memory."""
        return self.are_due or bool(self._held)

    def post(self, deliveries: Sequence[Delivery]) -> None:
        """Have them let go of. Called by the owning thread."""
        self._posted += 1
        self._posted_at = monotonic()
        self._on_loop(self._let_go, deliveries)

    def take(self) -> list[Delivery]:
        """Return those that are to be finished now. Called by the owning thread."""
        if self._held and monotonic() - self._posted_at > LOOK_AGAIN_S:
            self.post([])
        return [self._absent.popleft() for _ in range(len(self._absent))]

    def _let_go(self, deliveries: Sequence[Delivery]) -> None:
        wanted = self._held.union(deliveries)
        ids = {entry.id for queue in (self._dispatcher.done, self._dispatcher.ruled) for entry in list(queue)}
        for lane in self._dispatcher.lanes.values():
            ids |= _withdraw(lane, wanted)
        self._held = {each for each in wanted if each[0] in ids}
        self._absent.extend(wanted - self._held)
        self._answered += 1


def _withdraw(lane: Lane, wanted: Collection[Delivery]) -> set[str]:
    """Let go of what waits in a lane; return the messages that it had, and those that are under way."""
    found: set[str] = set()

    def belongs(entry: Entry) -> bool:
        is_wanted = (entry.id, lane.name) in wanted
        if is_wanted:
            found.add(entry.id)
        return is_wanted

    for entry in filter(belongs, lane.queue.under_way.values()):
        entry.epoch = STALE
    lane.park(belongs)
    return found
