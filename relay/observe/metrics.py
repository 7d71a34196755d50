"""The metrics of one relay, for Prometheus.

Counting is done per batch: methods take counts, and a label is looked up once per destination. Each relay has its own
registry, so two relays in one process do not clash.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric

from relay.decide.verdict import State
from relay.observe import process
from relay.observe.backlog import BacklogMetrics
from relay.observe.causes import Causes

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
STATEMENT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15)

TYPES = 100  # how many event types have their own series
OTHER = "other"


class SampledHistogram:
    """A histogram by destination that takes whole batches; it gets a sample that stands for all values of a batch."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = tuple(bounds)
        self._counts: dict[str, list[float]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, destination: str, sample: Sequence[float], count: int) -> None:
        """Count ``count`` values, of which ``sample`` is an even sample."""
        counts = self._counts.get(destination)
        if counts is None:
            counts = self._counts[destination] = [0.0] * (len(self._bounds) + 1)
        weight = count / len(sample)
        for value in sample:
            counts[bisect_left(self._bounds, value)] += weight
        self._sums[destination] = self._sums.get(destination, 0.0) + sum(sample) * weight

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._documentation, labels=["destination"])]

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=["destination"])
        for destination, counts in list(self._counts.items()):
            total, buckets = 0.0, []
            for bound, count in zip((*map(str, map(float, self._bounds)), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, round(total, 6)))  # rounded: many weights are not binary fractions
            family.add_metric([destination], buckets, self._sums.get(destination, 0.0))
        yield family


class Metrics:
    """All metrics of one relay.

    Attributes:
        backlog: The last sample of the backlog.
        causes: Why attempts failed, and deliveries died.
        wake_ups: Wake-ups of a sleeping relay, by their cause: ``notify`` or ``poll``.
        lost_sessions: Owning sessions that were lost; with each session the relay lost all its shards.
        ended_peers: Sessions of silent peers that this relay ended.

    Example:
        >>> metrics = Metrics()
        >>> metrics.delivered("api", 500, [0.004, 0.006])
        >>> b'outbox_deliveries_total{destination="api",verdict="delivered"} 500.0' in metrics.text()
        True
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.backlog = BacklogMetrics()
        self.registry.register(self.backlog)
        self._beat_at: float | None = None
        self._emitted_by_type: dict[str, Counter] = {}
        self.causes = Causes(self.registry)
        self._make_destination_metrics()
        self._make_relay_metrics()
        self._make_session_metrics()

    def delivered(self, destination: str, count: int, sample_s: Sequence[float] = ()) -> None:
        """Count deliveries that a destination took.

        Args:
            destination: The destination's name.
            count: The number of deliveries.
            sample_s: The latencies of an even sample of them, from commit to delivery, in seconds.
        """
        self._deliveries.labels(destination, State.DELIVERED).inc(count)
        if sample_s:
            self._latency.observe(destination, sample_s, count)

    def failed(self, destination: str, reason: str) -> None:
        """Count an attempt that failed, charged or not, by its cause."""
        self.causes.count(destination, "failed", reason)

    def count(self, destination: str, state: str, count: int = 1, *, reason: str | None = None) -> None:
        """Count deliveries with any verdict except that of a normal delivery.

        Args:
            destination: The destination's name.
            state: ``retry``, ``dead``, ``parked``, ``blocked``, ``expired`` or ``delivered``; ``discarded`` or
                ``cancelled`` by an operator.
            count: The number of deliveries.
            reason: The reason, for dead letters.
        """
        if state == State.DEAD:
            self.causes.count(destination, "dead", reason, count)
        if state in (State.PARKED, State.BLOCKED):
            self._parked.inc(count)
        else:
            self._deliveries.labels(destination, state).inc(count)

    def read(self, count: int, duration_s: float) -> None:
        """Count a read, its messages and its duration."""
        self._read_messages.inc(count)
        self._read.observe(duration_s)

    def emitted(self, counts: Mapping[str, int]) -> None:
        """Count messages that were seen for the first time, by their type; beyond `TYPES`, as ``other``."""
        known = self._emitted_by_type
        for type_, count in counts.items():
            series = known.get(type_)
            if series is None:
                series = self._emitted.labels(type_ if len(known) < TYPES else OTHER)
                if len(known) < TYPES:
                    known[type_] = series
            series.inc(count)

    def settled(self, count: int, duration_s: float) -> None:
        """Count a batch of settled deliveries, and its duration."""
        self._settled.inc(count)
        self._settle.observe(duration_s)

    def watch(self, *, window: Callable[[], float], owns: Callable[[], float]) -> None:
        """Have these read at each scrape: messages held unsettled, and shards owned."""
        self._window.set_function(window)
        self._shards.set_function(owns)

    def watch_destination(self, name: str, *, in_flight: Callable[[], float], healthy: Callable[[], float]) -> None:
        """Have these read at each scrape: attempts under way, and 1 while the destination takes messages, else 0."""
        self._deliveries.labels(name, State.DELIVERED)  # its series begins at 0
        self._in_flight.labels(name).set_function(in_flight)
        self._healthy.labels(name).set_function(healthy)

    def beat(self) -> None:
        """Note that the relay has just written its beat."""
        self._beat_at = time.monotonic()

    def text(self) -> bytes:
        """Return all metrics, with those of the process, in Prometheus' text format."""
        return generate_latest(self.registry) + process.text()

    def _make_destination_metrics(self) -> None:
        verdicts = "Verdicts: delivered, retry (charged), dead or expired; discarded or cancelled by an operator"
        self._deliveries = self._counter("outbox_deliveries", verdicts, "destination", "verdict")
        self._in_flight = self._gauge("outbox_in_flight", "Attempts under way", "destination")
        health = "1: delivered to; 0: paused, throttled or off"
        self._healthy = self._gauge("outbox_destination_healthy", health, "destination")
        self._latency = SampledHistogram(
            "outbox_latency_seconds", "From commit to delivery, by destination (sampled)", LATENCY_BUCKETS_S
        )
        self.registry.register(self._latency)

    def _make_relay_metrics(self) -> None:
        emitted = (
            "Messages emitted, by type, as this relay first saw them (after a restart, some again); past 100: other"
        )
        self._emitted = self._counter("outbox_emitted_messages", emitted, "type")
        self._read_messages = self._counter("outbox_read_messages", "Messages read")
        self._settled = self._counter("outbox_settled_deliveries", "Deliveries settled")
        self._parked = self._counter("outbox_parked_deliveries", "Deliveries parked because they could not start")
        self._read = self._statement("outbox_read_seconds", "Duration of reads")
        self._settle = self._statement("outbox_settle_seconds", "Duration of settling, with the read that goes along")
        self._window = self._gauge("outbox_window_messages", "Messages held unsettled")
        self.wake_ups = self._counter("outbox_wake_ups", "Wake-ups from sleep, by cause", "by")

    def _make_session_metrics(self) -> None:
        self._shards = self._gauge("outbox_owned_shards", "Shards owned by this relay")
        self.lost_sessions = self._counter("outbox_lost_sessions", "Owning sessions lost")
        self.ended_peers = self._counter("outbox_ended_peers", "Sessions of silent peers ended by this relay")
        beat_age = self._gauge("outbox_beat_age_seconds", "Time since this relay's last beat")
        beat_age.set_function(self._beat_age_s)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)

    def _statement(self, name: str, documentation: str) -> Histogram:
        return Histogram(name, documentation, buckets=STATEMENT_BUCKETS_S, registry=self.registry)

    def _beat_age_s(self) -> float:
        return float("nan") if self._beat_at is None else time.monotonic() - self._beat_at
