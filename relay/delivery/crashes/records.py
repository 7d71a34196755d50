"""The crash records of this relay's shards: watched, noted and accused deliveries.

A record is stored in ``outbox_shard.started`` (`relay.decide.failures.crashes` describes its form). This object only
decides; `relay.delivery.crashes.guard` has the `changed` records written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from relay.databases.store.inheriting import Inherited
from relay.decide.failures.crashes import Accused, Delivery, Record
from relay.decide.verdict import CHARGED, State
from relay.seam import Entry


class CrashRecords:
    """The records of the shards that were not handed back in order.

    Args:
        window: The most entries that a relay holds; the last owner of a shard cannot have had more of its entries under
            way.

    Attributes:
        changed: The shards whose record in the table is out of date.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._shards: dict[int, Record] = {}
        # The watched entries by shard and destination (``None``: messages that were read for the first time).
        self._counts: Counter[tuple[int, str | None]] = Counter()
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
        self.leave([inherited.shard])
        left = Record.parse(inherited.record)
        accused = left.after_crash() if inherited.is_dirty else left.accused
        until = inherited.at if inherited.is_dirty else left.until
        record = Record(until, {d: a for d, a in accused.items() if d[0] in inherited.present})
        if not record.is_empty:
            self._shards[inherited.shard] = record

    def leave(self, shards: Sequence[int]) -> None:
        """Forget shards that were handed back; the table keeps their accused deliveries."""
        for shard in shards:
            self._shards.pop(shard, None)
            for place in [place for place in self._counts if place[0] == shard]:
                del self._counts[place]

    def end_watch(self) -> None:
        """Watch no further entries: everything that a dead owner may have had under way was read."""
        self._counts.clear()
        for shard, record in list(self._shards.items()):
            if record.until is not None:
                record.until = None
                self.changed.add(shard)
            self._tidy(shard)

    def is_watched(self, entry: Entry) -> bool:
        """Return whether the last owner of the entry's shard may have had it under way; called once for each entry."""
        record, place = self._shards.get(entry.shard), (entry.shard, entry.destination)
        if record is None or record.until is None or entry.created_at > record.until:
            return False
        self._counts[place] += 1
        return self._counts[place] <= self._window

    def accusation(self, shard: int, delivery: Delivery) -> Accused | None:
        """Return the accusation of a delivery, if there is one."""
        record = self._shards.get(shard)
        return record.accused.get(delivery) if record is not None else None

    def acquit(self, shard: int, delivery: Delivery) -> None:
        """Clear a delivery: an attempt at it has ended, and the relay survived it."""
        if shard in self._shards:
            self._shards[shard].accused.pop(delivery, None)

    def note_settled(self, entry: Entry) -> bool:
        """Note that the table has the verdicts on an entry; return whether that changed a record."""
        record = self._shards.get(entry.shard)
        if record is None:
            return False
        accused, has_changed = record.accused, False
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
        record = self._shards.setdefault(shard, Record())
        record.started.add(delivery)
        record.is_alone = is_alone
        self.changed.add(shard)

    def end(self, shard: int, delivery: Delivery) -> bool:
        """Note that an attempt has ended, or did not start; return whether the shard has a record."""
        record = self._shards.get(shard)
        if record is None:
            return False
        record.started.discard(delivery)
        record.is_alone = False
        self.changed.add(shard)
        self._tidy(shard)
        return True

    def take_changed(self) -> dict[int, str | None]:
        """Return the records to write: shard → its record; ``None`` clears it."""
        records = {shard: self._shards.get(shard, Record()).dump() for shard in self.changed}
        self.changed.clear()
        return records

    def _tidy(self, shard: int) -> None:
        if self._shards[shard].is_empty:
            del self._shards[shard]
