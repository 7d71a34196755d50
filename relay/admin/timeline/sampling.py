"""Measure over time, for the dashboard: every fifteen seconds, this relay's work and the state of the outbox."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from time import monotonic
from typing import Any

import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from relay.admin.access.queries import now
from relay.admin.timeline.samples import EVERY_S, LATENCY_BOUNDS_S, WHOLE, Did, floor, store
from relay.decide.verdict import State
from relay.observe.backlog import Backlog

DELIVERIES, LATENCIES = "outbox_deliveries", "outbox_latency_seconds"
EMITTED = {
    "postgresql": "SELECT last_value FROM outbox_message_position_seq",
    "sqlite": "SELECT seq FROM sqlite_sequence WHERE name = 'outbox_message'",
}


class Sampler:
    """Takes the samples of one relay.

    Args:
        registry: The relay's metrics.
        relay: Its name.
    """

    def __init__(self, registry: CollectorRegistry, relay: str) -> None:
        self._registry, self._relay = registry, relay
        self._last, self._last_at = _counted(registry), monotonic()

    def keep_done(self, connection: sa.Connection) -> None:
        """Store what this relay did since the last call, if it did anything."""
        counted, at = _counted(self._registry), monotonic()
        did = _difference(counted, self._last)
        if did.verdicts:
            store(connection, now(connection), self._relay, max(at - self._last_at, 0.001), did.as_json())
        self._last, self._last_at = counted, at

    def keep_backlog(self, connection: sa.Connection, found: Backlog) -> None:
        """Store the state of the outbox; one relay does this for all."""
        emitted = connection.exec_driver_sql(EMITTED[connection.dialect.name]).scalar() or 0
        store(connection, floor(found.at, EVERY_S), WHOLE, EVERY_S, {"emitted": emitted, **_facts(found)})


def _facts(found: Backlog) -> dict[str, Any]:
    return {
        "waiting": sum(count for state, count in found.messages.items() if state != State.UNROUTED),
        "dead": sum(each.dead for each in found.destinations.values()),
        "unrouted": found.unrouted,
        "due_age_s": found.oldest_due_s,
        "destinations": {
            name: {"waiting": sum(each.waiting.values()), "dead": each.dead, "state": each.state}
            for name, each in found.destinations.items()
        },
    }


def _counted(registry: CollectorRegistry) -> Did:
    """Return the current values of the metrics."""
    verdicts: defaultdict[str, dict[str, float]] = defaultdict(dict)
    cumulated: dict[float, float] = {}
    for metric in registry.collect():
        for sample in metric.samples if metric.name in (DELIVERIES, LATENCIES) else ():
            if sample.name == f"{DELIVERIES}_total":
                verdicts[sample.labels["destination"]][sample.labels["verdict"]] = sample.value
            elif sample.name == f"{LATENCIES}_bucket":
                cumulated[float(sample.labels["le"])] = sample.value
    bounds = [cumulated.get(bound, 0.0) for bound in (*LATENCY_BOUNDS_S, float("inf"))]
    return Did(dict(verdicts), [upper - lower for lower, upper in pairwise([0.0, *bounds])])


def _difference(after: Did, before: Did) -> Did:
    verdicts = {
        name: changed
        for name, counts in after.verdicts.items()
        if (
            changed := {
                verdict: count - before.verdicts.get(name, {}).get(verdict, 0)
                for verdict, count in counts.items()
                if count > before.verdicts.get(name, {}).get(verdict, 0)
            }
        )
    }
    return Did(verdicts, [round(a - b, 3) for a, b in zip(after.latencies, before.latencies, strict=True)])
