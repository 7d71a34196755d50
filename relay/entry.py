"""A message in the relay's hands: read, not settled yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox import Message
from relay.decide.verdict import DELIVERED, Verdict

if TYPE_CHECKING:
    from relay.caution import Caution
    from relay.lane import Lane
    from relay.waiting import Waiting

Row = tuple[Any, ...]


class Entry:
    """One message that was read and is not settled: with all its destinations, or with one that had been set aside.

    The plain entry comes from ``outbox_message`` and goes to every subscribed destination; when all of them took it, it
    moves to history with its whole batch. An entry with a ``destination`` comes from ``outbox_delivery`` and is about
    that one delivery.
    """

    __slots__ = (
        "alone", "attempts", "caution", "destination", "epoch", "failing_for_s", "generation", "handle", "id", "key",
        "lanes", "lingers", "message", "open", "position", "releases", "row", "shard", "verdicts",
    )  # fmt: skip

    def __init__(self, row: Row, lanes: tuple[Lane, ...], epoch: int) -> None:
        self.row = row
        self.id: str = row[0]
        self.position: int = row[1]
        self.shard: int = row[2]
        self.generation: int = row[3]
        self.key: str | None = row[7]
        self.message = Message(row[0], row[4], row[5], row[6], row[7], row[8], row[9], row[10])
        self.handle: tuple[str, str | None] = (self.id, None)  # what it is held by
        self.lanes = lanes
        self.epoch = epoch
        self.open = len(lanes)
        self.verdicts: dict[str, Verdict] | None = None
        self.destination: str | None = None
        self.attempts = 0
        self.failing_for_s = 0.0
        self.caution: Caution | None = None  # who is asked before it is sent: a relay may have died of it
        self.alone = False  # never again in a batch: one that it was part of was not taken
        self.lingers = False  # set aside by one destination, and waiting for another's verdict for a beat
        self.releases = False  # when settled, lets go of what waits in the table behind its key

    @classmethod
    def of_delivery(cls, row: Row, lane: Lane, epoch: int) -> Entry:
        """From a row of ``outbox_delivery`` joined to its message (see ``relay.store.contract``)."""
        entry = cls(row, (lane,), epoch)
        entry.destination, entry.generation, entry.attempts, entry.failing_for_s = row[12:16]
        entry.handle = entry.id, entry.destination
        entry.message.attempt = entry.attempts + 1
        return entry

    @property
    def is_plain(self) -> bool:
        """Whether every destination took it at the first try."""
        return self.verdicts is None and self.destination is None and not self.releases

    def decide(self, lane: Waiting, verdict: Verdict) -> bool:
        """Note one destination's verdict; true when all of them are in."""
        if verdict is not DELIVERED:
            if self.verdicts is None:
                self.verdicts = {}
            self.verdicts[lane.name] = verdict
        self.open -= 1
        return self.open == 0

    def verdict_of(self, lane: Waiting) -> Verdict:
        return self.verdicts.get(lane.name, DELIVERED) if self.verdicts else DELIVERED
