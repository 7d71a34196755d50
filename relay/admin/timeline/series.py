"""Read what was measured over time: at even intervals for plots, and as a recent pace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.access.queries import since
from relay.admin.timeline.samples import EVERY_S, WHOLE
from relay.admin.timeline.steps import NOTHING, Counts, Line, Steps, names_in, total_of
from relay.observe.causes import OTHER, What
from relay.observe.metrics import LATENCY_BUCKETS_S

CAUSES_SHOWN = 5
LATE_S = 1.2 * EVERY_S  # so long after an interval all relays have written what they did in it
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
        failed_by_cause: Cause → failed attempts per second; the commonest causes first, then ``other``.
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
    total = Counts()
    for row in rows:
        for name in names_in(row.facts):
            total.add(row.facts, name, 1.0, with_deaths=True)
    known = [(row.at.timestamp(), row.facts["emitted"]) for row in rows if row.facts.get("emitted") is not None]
    grown_for_s = known[-1][0] - known[0][0] if known else 0.0
    return Pace(
        emitted_per_s=round(max(known[-1][1] - known[0][1], 0) / grown_for_s, 3) if grown_for_s else None,
        delivered_per_s=round(total.delivered / span_s, 3),
        failed_per_s=round(total.failed / span_s, 3),
        p50_s=quantile(total.latencies, 0.5),
        p99_s=quantile(total.latencies, 0.99),
    )


def series(connection: sa.Connection, begin: datetime, end: datetime, *, destination: str | None = None) -> Series:
    """Return the measurements between two instants, in at most `POINTS` intervals.

    Args:
        connection: To the outbox's database.
        begin: The first instant.
        end: The last one.
        destination: Return the series of this one; ``None``: of the whole outbox, and those of all destinations.
    """
    steps = Steps.between(begin, end)
    rows = _rows(connection, begin)
    whole = [row for row in rows if row.relay == WHOLE]
    gauges = steps.gauges(whole)
    counts = steps.counts(row for row in rows if row.relay != WHOLE)
    is_known = [
        at <= end.timestamp() - LATE_S and (gauge is not None or bool(of))
        for at, gauge, of in zip(steps.ends, gauges, counts, strict=True)
    ]

    def lines_of(name: str) -> dict[str, Line]:
        held = [(gauge.get("destinations") or {}).get(name, {}) if gauge else {} for gauge in gauges]
        of = [each.get(name, NOTHING) for each in counts]
        return _lines(of, is_known, steps.step_s) | _gauges(held, DESTINATION_GAUGES)

    if destination is not None:
        only = [each.get(destination, NOTHING) for each in counts]
        return Series(steps.ends, steps.step_s, lines_of(destination), *_by_cause(only, is_known, steps.step_s), {})
    total = [total_of(each.values()) for each in counts]
    lines = _lines(total, is_known, steps.step_s) | _gauges([gauge or {} for gauge in gauges], GAUGES)
    lines["emitted_per_s"] = steps.growth(whole)
    names = sorted({*(name for each in counts for name in each), *(n for each in gauges for n in names_in(each or {}))})
    split = {name: lines_of(name) for name in names}
    return Series(steps.ends, steps.step_s, lines, *_by_cause(total, is_known, steps.step_s), split)


GAUGES = ("waiting", "dead", "unrouted", "due_age_s")
DESTINATION_GAUGES = ("waiting", "dead", "due_age_s")


def _lines(counts: Sequence[Counts], is_known: Sequence[bool], step_s: int) -> dict[str, Line]:
    def line(value: Callable[[Counts], float]) -> Line:
        return [round(value(each), 3) if known else None for each, known in zip(counts, is_known, strict=True)]

    return {
        "delivered_per_s": line(lambda each: each.delivered / step_s),
        "failed_per_s": line(lambda each: each.failed / step_s),
        "died": line(lambda each: each.died),
        "p50_s": [quantile(each.latencies, 0.5) for each in counts],
        "p99_s": [quantile(each.latencies, 0.99) for each in counts],
    }


def _gauges(held: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Line]:
    return {name: [each.get(name) for each in held] for name in names}


def _by_cause(counts: Sequence[Counts], is_known: Sequence[bool], step_s: int) -> tuple[ByCause, ByCause]:
    """Return the failed attempts per second and the new dead letters, by cause."""
    return _caused(counts, is_known, "failed", step_s), _caused(counts, is_known, "dead", 1)


def _caused(counts: Sequence[Counts], is_known: Sequence[bool], what: What, over: int) -> ByCause:
    """Return a line for each of the commonest causes, and one for all others."""
    totals: Counter[str] = Counter()
    for each, known in zip(counts, is_known, strict=True):
        if known:
            totals.update({cause: of[what] for cause, of in each.causes.items() if of.get(what)})
    named = sorted(set(totals) - {OTHER}, key=lambda cause: (-totals[cause], cause))
    groups = {cause: {cause} for cause in named[:CAUSES_SHOWN]}
    if others := {*named[CAUSES_SHOWN:], *(set(totals) & {OTHER})}:
        groups[OTHER] = others
    return {
        label: [
            round(sum(each.causes.get(cause, {}).get(what, 0.0) for cause in of) / over, 3) if known else None
            for each, known in zip(counts, is_known, strict=True)
        ]
        for label, of in groups.items()
    }


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
