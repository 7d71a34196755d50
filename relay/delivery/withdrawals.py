"""Deliveries that operators took back, on the event loop: release those that have not been begun.

An entry that waits in a lane goes back to the table, with those behind it in its key, which are read again. An entry
under way is not sent a second time: from here on it counts as an entry of an earlier session.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from relay.delivery.lane import Lane
from relay.seam import Entry, ToOwner, Withdrawn

STALE = -1  # the epoch of an entry that is not sent again

Delivery = tuple[str, str]  # (message, destination)


class Withdrawals:
    """The deliveries that operators took back and that are in memory.

    Args:
        lanes: The destinations.
        owner: Gets the answers, and holds entries that wait to be settled.
    """

    def __init__(self, lanes: Sequence[Lane], owner: ToOwner) -> None:
        self._lanes, self._owner = lanes, owner
        self._held: set[Delivery] = set()  # under way, or waiting to be settled

    def begin_session(self) -> None:
        """Forget the questions of an earlier session: the next one asks again."""
        self._held = set()

    def release(self, deliveries: Sequence[Delivery], epoch: int) -> None:
        """Release these deliveries, and those of earlier calls that were under way; answer which are gone."""
        wanted = self._held.union(deliveries)
        ids = {entry.id for queue in (self._owner.done, self._owner.ruled) for entry in list(queue)}
        for lane in self._lanes:
            ids |= _withdraw(lane, wanted)
        self._held = {each for each in wanted if each[0] in ids}
        self._owner.withdrawn.append(Withdrawn(epoch, wanted - self._held, bool(self._held)))


def _withdraw(lane: Lane, wanted: Collection[Delivery]) -> set[str]:
    """Release the entries that wait in a lane; return its messages, including those under way."""
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
