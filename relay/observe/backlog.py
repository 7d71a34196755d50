"""The size and age of the backlog, as one relay samples it for all, and the metrics that show it.

Counting ten million rows every few seconds would cost more than delivering them. So a small table is counted exactly.
Of a large table, a few hundred random pages (on SQLite: short windows of rows) are counted, and the count is
extrapolated. The numbers that alerts use (dead letters, messages that no subscription wants, the oldest due delivery)
are read from an index, and are exact as long as they are small. An index may hold millions of entries of settled rows
that no vacuum has removed yet. If it takes too long to pass over them, the number is estimated from the same pages, and
the next sample continues from there.

Only the relay that samples shows these series. When its samples fail, they are NaN: a constant number would look like
an outbox that stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic

from prometheus_client.core import GaugeMetricFamily, Metric

SAMPLE_EVERY_S = 15.0
STALE_AFTER_S = 3 * SAMPLE_EVERY_S
STATES = ("healthy", "paused", "throttled", "off")
NAN = float("nan")


@dataclass(frozen=True)
class DestinationBacklog:
    """The backlog of one registered destination.

    Args:
        state: ``healthy``, ``paused``, ``throttled`` or ``off``.
        paused_by_operator: Whether an operator paused it; then no delivery counts as due.
        oldest_due_s: The age of the oldest delivery that is due, in seconds; 0 if none is due.
        waiting: State (``ready``, ``scheduled``, ``parked``, ``blocked``, ``retry``) → deliveries.
        dead: Dead letters.
    """

    state: str
    paused_by_operator: bool = False
    oldest_due_s: float = 0.0
    waiting: Mapping[str, int] = field(default_factory=dict)
    dead: int = 0


@dataclass(frozen=True)
class Backlog:
    """One sample of the whole outbox.

    Args:
        at: The time of the sample, by the database's clock.
        destinations: The registered destinations, by name.
        messages: State → the count of messages that are not settled everywhere.
        unrouted: The count of messages that no subscription wants.
        shards_without_owner: The count of shards that no relay delivers.
        relays_alive: The count of relays that have a session.
        is_estimate: Whether large numbers are estimates.
    """

    at: datetime
    destinations: Mapping[str, DestinationBacklog]
    messages: Mapping[str, int]
    unrouted: int
    shards_without_owner: int
    relays_alive: int
    is_estimate: bool = False

    @property
    def oldest_due_s(self) -> float:
        """The age of the oldest delivery that is due at any destination, in seconds; 0 if none is due."""
        return max((each.oldest_due_s for each in self.destinations.values()), default=0.0)


class BacklogMetrics:
    """The last sample, as gauges.

    Args:
        clock: Returns the time in seconds, to recognise a stale sample.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last: Backlog | None = None
        self._until = 0.0

    def show(self, sample: Backlog) -> None:
        """Show a sample until it is stale."""
        self._last, self._until = sample, self._clock() + STALE_AFTER_S

    def hide(self) -> None:
        """Show nothing: another relay samples."""
        self._last = None

    def describe(self) -> Iterable[Metric]:
        return [_family(name, labels) for name, (_, labels) in FAMILIES.items()]

    def collect(self) -> Iterator[Metric]:
        sample = self._last
        if sample is None:
            return
        is_stale = self._clock() > self._until
        for name, samples in _values(sample).items():
            family = _family(name, FAMILIES[name][1])
            for labels, value in samples:
                # the time of a sample stays correct when the sample is stale
                family.add_metric(labels, NAN if is_stale and name != TAKEN_AT else value)
            yield family


TAKEN_AT = "outbox_backlog_sample_timestamp_seconds"
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "outbox_oldest_due_age_seconds": (
        "Age of the oldest delivery that is due; scheduled ones and destinations that an operator paused do not count",
        ("destination",),
    ),
    "outbox_waiting_deliveries": (
        "Deliveries still to be made, by state (large numbers are estimates)",
        ("destination", "state"),
    ),
    "outbox_messages": ("Messages that are not settled everywhere, by state (large numbers are estimates)", ("state",)),
    "outbox_dead_letters": ("Dead letters (exact up to 1,000, then an estimate)", ("destination",)),
    "outbox_unrouted_messages": ("Messages that no subscription wants (exact up to 1,000, then an estimate)", ()),
    "outbox_destination_state": ("1 for the state that a destination is in, else 0", ("destination", "state")),
    "outbox_destination_paused_by_operator": ("1 while an operator has paused it, else 0", ("destination",)),
    "outbox_shards_without_owner": ("Shards that no relay delivers", ()),
    "outbox_relays_alive": ("Relays that have a session", ()),
    TAKEN_AT: ("When this relay sampled the backlog, for all relays", ()),
}


def _family(name: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, FAMILIES[name][0], labels=labels)


def _values(sample: Backlog) -> dict[str, list[tuple[list[str], float]]]:
    """Metric → (labels, value) of each series."""
    each = sample.destinations.items()
    return {
        "outbox_oldest_due_age_seconds": [([name], d.oldest_due_s) for name, d in each],
        "outbox_waiting_deliveries": [([name, state], count) for name, d in each for state, count in d.waiting.items()],
        "outbox_messages": [([state], count) for state, count in sample.messages.items()],
        "outbox_dead_letters": [([name], d.dead) for name, d in each],
        "outbox_unrouted_messages": [([], sample.unrouted)],
        "outbox_destination_state": [([name, s], float(d.state == s)) for name, d in each for s in STATES],
        "outbox_destination_paused_by_operator": [([name], float(d.paused_by_operator)) for name, d in each],
        "outbox_shards_without_owner": [([], sample.shards_without_owner)],
        "outbox_relays_alive": [([], sample.relays_alive)],
        TAKEN_AT: [([], sample.at.timestamp())],
    }
