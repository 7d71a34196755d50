"""The crash records of this relay's shards: watched, noted and accused deliveries.

A record stands in ``outbox_shard.started`` (`relay.decide.crashes` has its form). This object only decides;
`relay.delivery.crashes.guard` has the `changed` records written.
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
    """The record of one shard.

    Args:
        record: The content for the table.
        counts: The number of watched entries by destination (``None``: messages that were read for the first time).
    """

    record: Record
    counts: Counter[str | None] = field(default_factory=Counter)


class CrashRecords:
    """The records of the shards that were not handed back in order.

    Args:
        window: Entries that a relay holds at most; the last owner of a shard cannot have had more of it under way.

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
        """Add the record that the last owner of a shard left."""
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
        """Forget shards that were handed back; the table keeps their accused deliveries."""
        for shard in shards:
            self._shards.pop(shard, None)

    def end_watch(self) -> None:
        """Watch no further entries: all that a dead owner may have had under way were read."""
        for shard, known in list(self._shards.items()):
            if known.record.until is not None:
                known.record.until = None
                self.changed.add(shard)
            self._tidy(shard)

    def is_watched(self, entry: Entry) -> bool:
        """Return whether the last owner of its shard may have had this entry under way; called once for each entry."""
        known = self._shards.get(entry.shard)
        until = known.record.until if known is not None else None
        if known is None or until is None or entry.message.created_at > until:
            return False
        known.counts[entry.destination] += 1
        return known.counts[entry.destination] <= self._window

    def accusation(self, shard: int, delivery: Delivery) -> Accused | None:
        """Return the accusation of a delivery, if there is one."""
        known = self._shards.get(shard)
        return known.record.accused.get(delivery) if known is not None else None

    def acquit(self, shard: int, delivery: Delivery) -> None:
        """Clear a delivery: an attempt at it has ended, and the relay survived it."""
        if shard in self._shards:
            self._shards[shard].record.accused.pop(delivery, None)

    def note_settled(self, entry: Entry) -> bool:
        """Note that the table has the verdicts on an entry; return whether that changed a record."""
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
        """Return the records to write: shard → its record; ``None`` clears it."""
        records = {shard: self._dump(shard) for shard in self.changed}
        self.changed.clear()
        return records

    def _dump(self, shard: int) -> str | None:
        known = self._shards.get(shard)
        return known.record.dump() if known is not None else None

    def _tidy(self, shard: int) -> None:
        if self._shards[shard].record.is_empty:
            del self._shards[shard]
