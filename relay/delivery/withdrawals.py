"""What operators took back, from the side of the event loop: let go of what has not been begun.

What waits in a lane goes back to the table, with what waits behind it in its key, which is read again. What is under
way is not sent a second time: from here on it is treated like an entry that an earlier session has read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from relay.delivery.lane import Lane
from relay.seam import Entry, ToOwner, Withdrawn

STALE = -1  # the epoch of an entry that is not sent again

Delivery = tuple[str, str]  # (message, destination)


class Withdrawals:
    """What operators took back, as far as it is in memory.

    Args:
        lanes: The destinations.
        owner: Hears the answers, and has what waits to be settled.
    """

    def __init__(self, lanes: Sequence[Lane], owner: ToOwner) -> None:
        self._lanes, self._owner = lanes, owner
        self._held: set[Delivery] = set()  # under way, or waiting to be settled

    def begin_session(self) -> None:
        """Forget what an earlier session has asked for: the next one finds it by itself."""
        self._held = set()

    def let_go(self, deliveries: Sequence[Delivery], epoch: int) -> None:
        """Let go of these deliveries, and of those of earlier calls that were held; answer which are gone."""
        wanted = self._held.union(deliveries)
        ids = {entry.id for queue in (self._owner.done, self._owner.ruled) for entry in list(queue)}
        for lane in self._lanes:
            ids |= _withdraw(lane, wanted)
        self._held = {each for each in wanted if each[0] in ids}
        self._owner.withdrawn.append(Withdrawn(epoch, wanted - self._held, bool(self._held)))


def _withdraw(lane: Lane, wanted: Collection[Delivery]) -> set[str]:
    """Let go of what waits in a lane; return the messages that it had, those under way included."""
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
