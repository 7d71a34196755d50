"""Measure over time, for the dashboard: every fifteen seconds, this relay's work and the state of the outbox."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise, zip_longest
from time import monotonic
from typing import Any

import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from relay.admin.access.queries import now
from relay.admin.timeline.samples import EVERY_S, WHOLE, Activity, Counts, as_facts, store
from relay.databases.dialect import dialect_of
from relay.decide.verdict import State
from relay.observe.backlog import Backlog
from relay.observe.metrics import Metrics

DELIVERIES, LATENCIES = "outbox_deliveries", "outbox_latency_seconds"


class Sampler:
    """Takes the samples of one relay.

    Args:
        metrics: The relay's metrics.
        relay: Its name.
    """

    def __init__(self, metrics: Metrics, relay: str) -> None:
        self._metrics, self._relay = metrics, relay
        self._last, self._last_at = _counted(metrics.registry), monotonic()

    def keep_done(self, connection: sa.Connection) -> None:
        """Store what this relay did since the last call, if it did anything."""
        counted, at = _counted(self._metrics.registry), monotonic()
        activity = {name: _grown(counts, self._last.get(name, Counts())) for name, counts in counted.items()}
        for name, causes in self._metrics.causes.take().items():
            activity.setdefault(name, Counts()).causes = causes
        if any(counts.verdicts or counts.causes for counts in activity.values()):
            store(connection, now(connection), self._relay, max(at - self._last_at, 0.001), as_facts(activity))
        self._last, self._last_at = counted, at

    def keep_backlog(self, connection: sa.Connection, found: Backlog) -> None:
        """Store the state of the outbox; one relay does this for all."""
        emitted = connection.exec_driver_sql(dialect_of(connection).EMITTED).scalar() or 0
        store(connection, found.at, WHOLE, EVERY_S, {"emitted": emitted, **_facts(found)})


def _facts(found: Backlog) -> dict[str, Any]:
    return {
        "waiting": sum(count for state, count in found.messages.items() if state != State.UNROUTED),
        "dead": sum(each.dead for each in found.destinations.values()),
        "unrouted": found.unrouted,
        "due_age_s": found.oldest_due_s,
        "destinations": {
            name: {
                "waiting": sum(each.waiting.values()),
                "dead": each.dead,
                "state": each.state,
                "due_age_s": each.oldest_due_s,
            }
            for name, each in found.destinations.items()
        },
    }


def _counted(registry: CollectorRegistry) -> Activity:
    """Return the current values of the metrics."""
    found: defaultdict[str, Counts] = defaultdict(Counts)
    for metric in registry.collect():
        for sample in metric.samples if metric.name in (DELIVERIES, LATENCIES) else ():
            of = found[sample.labels["destination"]]
            if sample.name == f"{DELIVERIES}_total":
                of.verdicts[sample.labels["verdict"]] = sample.value
            elif sample.name == f"{LATENCIES}_bucket":  # each bucket also counts the values of the buckets before it
                of.latencies.append(sample.value)
    return found


def _grown(after: Counts, before: Counts) -> Counts:
    """Return what was counted in between, without counts that did not change."""
    verdicts = {name: count - before.verdicts.get(name, 0) for name, count in after.verdicts.items()}
    grown = [a - b for a, b in zip_longest(after.latencies, before.latencies, fillvalue=0.0)]
    counts = [round(upper - lower, 3) for lower, upper in pairwise([0.0, *grown])]
    while counts and not counts[-1]:
        counts.pop()
    return Counts({name: count for name, count in verdicts.items() if count}, counts)
