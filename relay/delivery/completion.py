"""The entries that are decided and not yet known to be written. Runs on the event loop.

An entry comes here with its last verdict, goes to the owning thread, and comes back when it is settled: then its
verdicts are counted.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from relay.decide.verdict import BEHIND, BLOCKED
from relay.observe.metrics import Metrics
from relay.seam import Entry, ToOwner

SAMPLES_PER_BATCH = 16  # of the latencies of a settled batch


class Completion:
    """The way of an entry from its last verdict to the metrics.

    Args:
        owner: Settles entries.
        metrics: Counts verdicts, by the batch.

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
        """Whether a verdict or a finding is not yet known to be written."""
        return self._settling_count > 0 or bool(self._owner.findings)

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
        """Have the owning thread set an entry aside that no subscription wants."""
        self._settling_count += 1
        self._owner.unrouted.append(entry)

    def settled(self, entries: Collection[Entry]) -> None:
        """Count the verdicts of settled entries."""
        self._settling_count -= len(entries)
        for entry in entries:
            if entry.verdicts is None and entry.lanes:
                self.delivered_count += 1
            elif was_taken_by_any(entry):
                self.partly_delivered_count += 1
        self._count_verdicts(entries)

    def _count_verdicts(self, entries: Collection[Entry]) -> None:
        taken: dict[tuple[Any, ...], list[Entry]] = {}
        for entry in entries:
            if entry.verdicts is None:
                taken.setdefault(entry.lanes, []).append(entry)
                continue
            for lane in entry.lanes:  # not its verdicts, which omit the destinations that took it
                verdict = entry.verdict_of(lane.name)
                self._metrics.count(lane.name, verdict.state, reason=verdict.reason)
        now = datetime.now(UTC)
        for lanes, plain in taken.items():
            sample = plain[:: max(len(plain) // SAMPLES_PER_BATCH, 1)] if lanes else []
            ages_s = [(now - entry.message.created_at).total_seconds() for entry in sample]
            for lane in lanes:
                self._metrics.destination(lane.name).delivered(len(plain), ages_s)


def was_taken_by_any(entry: Entry) -> bool:
    """Return whether not all verdicts of an entry that has one are exceptions."""
    return len(entry.lanes) - entry.open > len(entry.verdicts or ())


def _note_what_is_still_before(entry: Entry) -> None:
    """Look up again which entry this one waits behind at one destination, after an attempt at another destination.

    The predecessor may have been settled in the meantime. Then it does not release this entry any more, and only the
    table knows whether its turn has come.
    """
    for lane in entry.lanes:
        if entry.verdicts and entry.verdict_of(lane.name) is BEHIND and entry.key not in lane.queue.chains:
            entry.verdicts[lane.name] = BLOCKED
