"""Measure over time, for the dashboard: every fifteen seconds, this relay's work and the state of the outbox."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise, zip_longest
from time import monotonic
from typing import Any

import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from relay.admin.access.queries import now
from relay.admin.timeline.samples import EVERY_S, WHOLE, Activity, floor, store
from relay.decide.verdict import State
from relay.observe.backlog import Backlog
from relay.observe.metrics import Metrics
from relay.store import dialect_of

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
        activity = _difference(counted, self._last)
        activity.causes = self._metrics.causes.take()
        if activity.verdicts or activity.causes:
            store(connection, now(connection), self._relay, max(at - self._last_at, 0.001), activity.as_json())
        self._last, self._last_at = counted, at

    def keep_backlog(self, connection: sa.Connection, found: Backlog) -> None:
        """Store the state of the outbox; one relay does this for all."""
        emitted = connection.exec_driver_sql(dialect_of(connection).EMITTED).scalar() or 0
        store(connection, floor(found.at, EVERY_S), WHOLE, EVERY_S, {"emitted": emitted, **_facts(found)})


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
    verdicts: defaultdict[str, dict[str, float]] = defaultdict(dict)
    cumulated: defaultdict[str, dict[float, float]] = defaultdict(dict)
    for metric in registry.collect():
        for sample in metric.samples if metric.name in (DELIVERIES, LATENCIES) else ():
            if sample.name == f"{DELIVERIES}_total":
                verdicts[sample.labels["destination"]][sample.labels["verdict"]] = sample.value
            elif sample.name == f"{LATENCIES}_bucket":
                cumulated[sample.labels["destination"]][float(sample.labels["le"])] = sample.value
    latencies = {
        name: [upper - lower for lower, upper in pairwise([0.0, *(of[bound] for bound in sorted(of))])]
        for name, of in cumulated.items()
    }
    return Activity(dict(verdicts), latencies)


def _difference(after: Activity, before: Activity) -> Activity:
    """Return what was counted in between, without what did not change."""
    return Activity(
        {
            name: changed
            for name, counts in after.verdicts.items()
            if (changed := _grown(counts, before.verdicts.get(name, {})))
        },
        {
            name: [a - b for a, b in zip_longest(counts, before.latencies.get(name, []), fillvalue=0.0)]
            for name, counts in after.latencies.items()
            if counts != before.latencies.get(name)
        },
    )


def _grown(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
