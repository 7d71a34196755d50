"""The entries that are decided, but not yet known to be settled. Runs on the event loop.

An entry comes here with its last verdict, goes to the owning thread, and comes back when it is settled. Then its
verdicts are counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from relay.decide.verdict import BEHIND, BLOCKED
from relay.observe.metrics import Metrics
from relay.seam import Entry, ToOwner

SAMPLES_PER_BATCH = 16  # latencies that are recorded of a settled batch


class Completion:
    """The way of an entry from its last verdict to the metrics.

    Args:
        owner: Settles entries.
        metrics: Counts verdicts, one batch at a time.

    Attributes:
        delivered_count: Messages that every destination took.
        partly_delivered_count: Messages that only some of their destinations took.
    """

    def __init__(self, owner: ToOwner, metrics: Metrics) -> None:
        self._owner, self._metrics = owner, metrics
        self._settling_count = 0
        self.delivered_count = 0
        self.partly_delivered_count = 0

    @property
    def is_settling(self) -> bool:
        """Whether some verdict or finding is not yet known to be written."""
        return self._settling_count > 0 or bool(self._owner.requests)

    def complete(self, entry: Entry) -> None:
        """Have the owning thread settle an entry that has all its verdicts."""
        self._settling_count += 1
        if entry.is_plain:
            self._owner.done.append(entry)
        else:
            _note_what_is_still_before(entry)
            self._owner.ruled.append(entry)
        if self._owner.is_asleep:
            self._owner.wake()

    def set_aside(self, entry: Entry) -> None:
        """Have the owning thread set aside an entry that no subscription wants."""
        self._settling_count += 1
        self._owner.unrouted.append(entry)

    def settled(self, entries: Collection[Entry]) -> None:
        """Count the verdicts of settled entries."""
        self._settling_count -= len(entries)
        taken: dict[tuple[Any, ...], list[Entry]] = {}
        for entry in entries:
            if entry.verdicts is None:
                taken.setdefault(entry.lanes, []).append(entry)
            else:
                self._count(entry)
        now = datetime.now(UTC)
        for lanes, plain in taken.items():
            if lanes:
                self._count_taken(lanes, plain, now)

    def _count_taken(self, lanes: tuple[Any, ...], entries: Sequence[Entry], now: datetime) -> None:
        """Count entries that all of these destinations took."""
        self.delivered_count += len(entries)
        sample = entries[:: max(len(entries) // SAMPLES_PER_BATCH, 1)]
        ages_s = [(now - entry.created_at).total_seconds() for entry in sample]
        for lane in lanes:
            self._metrics.delivered(lane.name, len(entries), ages_s)

    def _count(self, entry: Entry) -> None:
        """Count the verdicts on an entry, at least one of which is not `DELIVERED`."""
        if was_taken_by_any(entry):
            self.partly_delivered_count += 1
        for lane in entry.lanes:  # not `verdicts`, which omit the destinations that took it
            verdict = entry.verdict_of(lane.name)
            self._metrics.count(lane.name, verdict.state, reason=verdict.reason)


def was_taken_by_any(entry: Entry) -> bool:
    """Return whether a destination took this entry, which has at least one verdict."""
    return len(entry.lanes) - entry.open > len(entry.verdicts or ())


def _note_what_is_still_before(entry: Entry) -> None:
    """Look up again which entry this one waits behind at one destination, after an attempt at another destination.

    The predecessor may have been settled in the meantime. Then it does not release this entry any more, and only the
    table knows whether its turn has come.
    """
    for lane in entry.lanes:
        if entry.verdicts and entry.verdict_of(lane.name) is BEHIND and entry.key not in lane.queue.chains:
            entry.verdicts[lane.name] = BLOCKED
