"""Read the measurements over time: at even intervals for plots, and as a recent pace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import since
from relay.admin.timeline.samples import EVERY_S, WHOLE, Counts, activity_in, add_counts, commonest, end_of_step
from relay.decide.verdict import State
from relay.observe.causes import OTHER, What
from relay.observe.metrics import LATENCY_BUCKETS_S

CAUSES_SHOWN = 5
LATE_S = 1.2 * EVERY_S  # by this time after an interval all relays have written what they did in it
HALF = timedelta(seconds=EVERY_S / 2)
NOTHING = Counts()
Line = list[float | None]
ByCause = dict[str, Line]


@dataclass(frozen=True)
class Pace:
    """The recent rates and latencies.

    Args:
        emitted_per_s: Messages emitted per second; ``None`` if unknown.
        delivered_per_s: Deliveries taken per second.
        failed_per_s: Failed attempts per second.
        p50_s: The median time from commit to delivery, in seconds.
        p99_s: The 99th percentile of that time, in seconds.
    """

    emitted_per_s: float | None
    delivered_per_s: float
    failed_per_s: float
    p50_s: float | None
    p99_s: float | None


@dataclass(frozen=True)
class Series:
    """Measurements at even intervals, of the whole outbox or of one destination.

    Args:
        at: The ends of the intervals, in seconds since 1970.
        step_s: The length of an interval, in seconds.
        lines: Name → a value for each interval; ``None`` without a measurement.
        failed_by_cause: Cause → failed attempts per second; the most common causes first, then ``other``.
        died_by_cause: Cause → new dead letters in each interval, in the same order.
        destinations: Destination → the same as `lines`; empty in the series of one destination.
    """

    at: list[int]
    step_s: int
    lines: dict[str, Line]
    failed_by_cause: ByCause
    died_by_cause: ByCause
    destinations: dict[str, dict[str, Line]]


def pace(connection: sa.Connection, begin: datetime) -> Pace | None:
    """Return the rates since an instant; ``None`` without samples."""
    rows = _rows(connection, begin)
    if not rows:
        return None
    span_s = max((rows[-1].at - rows[0].at).total_seconds() + EVERY_S, EVERY_S)
    total = _total(activity_in(rows).values())
    known = [(row.at.timestamp(), row.facts["emitted"]) for row in rows if row.facts.get("emitted") is not None]
    grown_for_s = known[-1][0] - known[0][0] if known else 0.0
    return Pace(
        emitted_per_s=round(max(known[-1][1] - known[0][1], 0) / grown_for_s, 3) if grown_for_s else None,
        delivered_per_s=round(total.verdicts.get(State.DELIVERED, 0) / span_s, 3),
        failed_per_s=round(sum(total.of("failed").values()) / span_s, 3),
        p50_s=quantile(total.latencies, 0.5),
        p99_s=quantile(total.latencies, 0.99),
    )


def series(
    connection: sa.Connection, begin: datetime, end: datetime, step_s: int, *, destination: str | None = None
) -> Series:
    """Return the measurements between two instants.

    Args:
        connection: To the outbox's database.
        begin: The first instant.
        end: The last one.
        step_s: The length of an interval, in seconds: at least the span of the rows in that time.
        destination: Return the series of this destination; ``None``: that of the whole outbox, and those of all
            destinations.
    """
    first = int(begin.timestamp()) // step_s * step_s
    ends = list(range(first + step_s, int(end.timestamp()) + 1, step_s))
    rows: defaultdict[int, list[Any]] = defaultdict(list)
    for row in _rows(connection, begin):
        # A relay writes shortly before or after the end of an interval.
        rows[int(end_of_step(row.at - HALF, step_s).timestamp())].append(row)
    gauges = [next((row.facts for row in reversed(rows[at]) if row.relay == WHOLE), None) for at in ends]
    activities = [activity_in(rows[at]) for at in ends]
    is_known = [
        at <= end.timestamp() - LATE_S and (gauge is not None or bool(activity))
        for at, gauge, activity in zip(ends, gauges, activities, strict=True)
    ]

    def lines_of(name: str) -> dict[str, Line]:
        held = [(gauge.get("destinations") or {}).get(name, {}) if gauge else {} for gauge in gauges]
        counts = [activity.get(name, NOTHING) for activity in activities]
        return _lines(counts, is_known, step_s) | _gauges(held, DESTINATION_GAUGES)

    if destination is not None:
        counts = [activity.get(destination, NOTHING) for activity in activities]
        lines, split = lines_of(destination), {}
    else:
        counts = [_total(activity.values()) for activity in activities]
        lines = _lines(counts, is_known, step_s) | _gauges([gauge or {} for gauge in gauges], GAUGES)
        lines["emitted_per_s"] = _growth([(gauge or {}).get("emitted") for gauge in gauges], step_s)
        named = {name for gauge in gauges if gauge for name in gauge.get("destinations") or {}}
        split = {name: lines_of(name) for name in sorted(named.union(*activities))}
    failed, died = _caused(counts, is_known, "failed", step_s), _caused(counts, is_known, "dead", 1)
    return Series(ends, step_s, lines, failed, died, split)


GAUGES = ("waiting", "dead", "unrouted", "due_age_s")
DESTINATION_GAUGES = ("waiting", "dead", "due_age_s")


def _total(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for each in counts:
        total.add(each)
    return total


def _lines(counts: Sequence[Counts], is_known: Sequence[bool], step_s: int) -> dict[str, Line]:
    def line(value: Callable[[Counts], float]) -> Line:
        return [round(value(each), 3) if known else None for each, known in zip(counts, is_known, strict=True)]

    return {
        "delivered_per_s": line(lambda each: each.verdicts.get(State.DELIVERED, 0) / step_s),
        "failed_per_s": line(lambda each: sum(each.of("failed").values()) / step_s),
        "died": line(lambda each: each.verdicts.get(State.DEAD, 0)),
        "p50_s": [quantile(each.latencies, 0.5) for each in counts],
        "p99_s": [quantile(each.latencies, 0.99) for each in counts],
    }


def _gauges(held: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Line]:
    return {name: [each.get(name) for each in held] for name in names}


def _growth(counts: Sequence[int | None], step_s: int) -> Line:
    """Return how much a count grew in each interval, per second."""
    return [
        None if before is None or after is None else round(max(after - before, 0) / step_s, 3)
        for before, after in pairwise([None, *counts])
    ]


def _caused(counts: Sequence[Counts], is_known: Sequence[bool], what: What, over: int) -> ByCause:
    """Return a line for each of the most common causes, and one for all others."""
    steps = [each.of(what) if known else None for each, known in zip(counts, is_known, strict=True)]
    totals: dict[str, float] = {}
    for step in steps:
        add_counts(totals, step or {})
    named = commonest(totals, CAUSES_SHOWN)
    lines: ByCause = {
        cause: [None if step is None else round(step.get(cause, 0) / over, 3) for step in steps] for cause in named
    }
    if len(named) < len(totals):
        rest = [None if step is None else sum(step[cause] for cause in step.keys() - {*named}) for step in steps]
        lines[OTHER] = [None if count is None else round(count / over, 3) for count in rest]
    return lines


def quantile(counts: Sequence[float], share: float) -> float | None:
    """Return a quantile of the latencies, from the counts in their classes.

    Args:
        counts: The count in each class of `LATENCY_BUCKETS_S`.
        share: The share below the result, from 0 to 1.

    Example:
        >>> quantile([0, 10], 0.5)
        0.0075
    """
    total = sum(counts)
    if not total:
        return None
    wanted, seen, lower = share * total, 0.0, 0.0
    for count, upper in zip(counts, LATENCY_BUCKETS_S, strict=False):
        if count and seen + count >= wanted:
            return round(lower + (upper - lower) * (wanted - seen) / count, 6)
        seen, lower = seen + count, upper
    return LATENCY_BUCKETS_S[-1]


def _rows(connection: sa.Connection, begin: datetime) -> Sequence[Any]:
    s = tables().sample
    return connection.execute(sa.select(s).where(since(connection, s.c.at, begin)).order_by(s.c.at)).all()
