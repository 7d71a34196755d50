"""The crash records of this relay's shards: what is watched, what is under way, and what is accused.

A record stands in ``outbox_shard.started`` (`relay.decide.crashes` has its form). This object decides, and neither
waits nor writes: `relay.delivery.crashes.guard` has what is `changed` written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.decide.crashes import Accused, Delivery, Record
from relay.decide.verdict import CHARGED, State
from relay.seam import Entry
from relay.store.contract import Inherited


@dataclass(slots=True)
class ShardRecord:
    """What is known of one shard.

    Args:
        record: What the table is told.
        counts: How much was watched, by destination (``None``: messages that were read for the first time).
    """

    record: Record
    counts: Counter[str | None] = field(default_factory=Counter)


class CrashRecords:
    """The records of the shards that were not handed back in order.

    Args:
        window: How many entries a relay holds: of each shard, its last owner cannot have had more under way.

    Attributes:
        changed: The shards whose record in the table is out of date.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._shards: dict[int, ShardRecord] = {}
        self.changed: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._shards)

    def take_over(self, inherited: Inherited) -> None:
        """Take in what the last owner of a shard left."""
        if not inherited.was_mine:
            self._open(inherited)
        if inherited.shard in self._shards or inherited.record is not None:
            self.changed.add(inherited.shard)

    def _open(self, inherited: Inherited) -> None:
        self._shards.pop(inherited.shard, None)
        left = Record.parse(inherited.record)
        accused = left.after_crash() if inherited.is_dirty else left.accused
        until = inherited.at if inherited.is_dirty else left.until
        record = Record(until, {d: a for d, a in accused.items() if d[0] in inherited.present})
        if not record.is_empty:
            self._shards[inherited.shard] = ShardRecord(record)

    def leave(self, shards: Sequence[int]) -> None:
        """Forget shards that were handed back; what is accused there stands in the table."""
        for shard in shards:
            self._shards.pop(shard, None)

    def end_watch(self) -> None:
        """Watch nothing new: everything was read that a dead owner can have had under way."""
        for shard, known in list(self._shards.items()):
            if known.record.until is not None:
                known.record.until = None
                self.changed.add(shard)
            self._tidy(shard)

    def is_watched(self, entry: Entry) -> bool:
        """Return whether the last owner of its shard can have had this entry under way; called once for each."""
        known = self._shards.get(entry.shard)
        until = known.record.until if known is not None else None
        if known is None or until is None or entry.message.created_at > until:
            return False
        known.counts[entry.destination] += 1
        return known.counts[entry.destination] <= self._window

    def accusation(self, shard: int, delivery: Delivery) -> Accused | None:
        """Return what a delivery is accused of, if it is."""
        known = self._shards.get(shard)
        return known.record.accused.get(delivery) if known is not None else None

    def acquit(self, shard: int, delivery: Delivery) -> None:
        """Accuse a delivery no more: an attempt at it has ended, and the relay has not."""
        if shard in self._shards:
            self._shards[shard].record.accused.pop(delivery, None)

    def note_settled(self, entry: Entry) -> bool:
        """Note that the verdicts on an entry stand in the table; return whether a record has changed for it."""
        known = self._shards.get(entry.shard)
        if known is None:
            return False
        accused, has_changed = known.record.accused, False
        for lane in entry.lanes:
            delivery = entry.id, lane.name
            accusation, state = accused.get(delivery), entry.verdict_of(lane.name).state
            if accusation is None or state not in CHARGED:
                continue
            if state == State.DEAD:
                del accused[delivery]
            else:
                accused[delivery] = Accused(accusation.crashes, accusation.alone, rested=True)
            self.changed.add(entry.shard)
            has_changed = True
        return has_changed

    def start(self, shard: int, delivery: Delivery, *, is_alone: bool) -> None:
        """Note that an attempt is about to start."""
        record = self._shards.setdefault(shard, ShardRecord(Record())).record
        record.started.add(delivery)
        record.is_alone = is_alone
        self.changed.add(shard)

    def end(self, shard: int, delivery: Delivery) -> bool:
        """Note that an attempt has ended, or did not start; return whether the shard has a record."""
        known = self._shards.get(shard)
        if known is None:
            return False
        known.record.started.discard(delivery)
        known.record.is_alone = False
        self.changed.add(shard)
        self._tidy(shard)
        return True

    def take_changed(self) -> dict[int, str | None]:
        """Return what is to be written: shard → its record; ``None`` clears it."""
        records = {shard: self._dump(shard) for shard in self.changed}
        self.changed.clear()
        return records

    def _dump(self, shard: int) -> str | None:
        known = self._shards.get(shard)
        return known.record.dump() if known is not None else None

    def _tidy(self, shard: int) -> None:
        if self._shards[shard].record.is_empty:
            del self._shards[shard]
