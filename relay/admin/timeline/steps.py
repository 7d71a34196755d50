"""What happened in each of even steps of time.

A row is about the time before it, and relays write at moments of their own. So its counts are spread over the intervals
that this time covers: else the rows of a relay would fall twice into one interval and not at all into the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from math import ceil
from typing import Any

from relay.admin.timeline.samples import add_counts, add_latencies
from relay.decide.verdict import State
from relay.observe.causes import What

POINTS = 240  # the maximum number of intervals
HOLDS_FOR = 3  # a gauge is known for this number of its own intervals
STEPS = (15, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600)
Line = list[float | None]


@dataclass
class Counts:
    """What happened at one destination, or at all of them, in one interval."""

    delivered: float = 0.0
    failed: float = 0.0
    died: float = 0.0
    latencies: list[float] = field(default_factory=list)
    causes: dict[str, dict[What, float]] = field(default_factory=dict)

    def add(self, facts: Mapping[str, Any], name: str, share: float, *, with_deaths: bool) -> None:
        """Add a share of what a row holds of a destination; its dead letters are few: add all of them, or none."""
        if verdicts := (facts.get("verdicts") or {}).get(name):
            self.delivered += verdicts.get(State.DELIVERED, 0) * share
            self.died += verdicts.get(State.DEAD, 0) if with_deaths else 0
        if latencies := (facts.get("latencies") or {}).get(name):
            add_latencies(self.latencies, latencies, share)
        for cause, counts in ((facts.get("causes") or {}).get(name) or {}).items():
            failed, dead = counts.get("failed", 0) * share, counts.get("dead", 0) if with_deaths else 0
            if not failed and not dead:
                continue
            self.failed += failed
            of = self.causes.setdefault(cause, {})
            if failed:
                of["failed"] = of.get("failed", 0.0) + failed
            if dead:
                of["dead"] = of.get("dead", 0.0) + dead


NOTHING = Counts()


def total_of(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for each in counts:
        total.delivered += each.delivered
        total.failed += each.failed
        total.died += each.died
        add_latencies(total.latencies, each.latencies)
        for cause, of in each.causes.items():
            add_counts(total.causes.setdefault(cause, {}), of)
    return total


@dataclass(frozen=True)
class Steps:
    """Even intervals.

    Args:
        begin: The beginning of the first one, in seconds since 1970.
        step_s: The length of each.
        count: How many there are.
    """

    begin: int
    step_s: int
    count: int

    @classmethod
    def between(cls, begin: datetime, end: datetime) -> Steps:
        """Return the intervals of the shortest round length that is long enough."""
        span_s = (end - begin).total_seconds()
        step_s = next((step for step in STEPS if span_s / step <= POINTS), STEPS[-1])
        first = int(begin.timestamp()) // step_s * step_s
        return cls(first, step_s, max((int(end.timestamp()) - first) // step_s, 0))

    @property
    def ends(self) -> list[int]:
        return [self.begin + (n + 1) * self.step_s for n in range(self.count)]

    def counts(self, rows: Iterable[Any]) -> list[dict[str, Counts]]:
        """Return what happened in each interval, by destination."""
        found: list[dict[str, Counts]] = [{} for _ in range(self.count)]
        for row in rows:
            at, names = row.at.timestamp(), names_in(row.facts)
            last = ceil((at - self.begin) / self.step_s) - 1  # a part of a dead letter would be odd to read
            for n, overlap_s in self._overlaps(at - row.span_s, at):
                of = found[n]
                for name in names:
                    if name not in of:
                        of[name] = Counts()
                    of[name].add(row.facts, name, overlap_s / row.span_s, with_deaths=n == last)
        return found

    def gauges(self, rows: Sequence[Any]) -> list[dict[str, Any] | None]:
        """Return the last known state of the outbox in each interval."""
        found: list[dict[str, Any] | None] = []
        last, coming = None, iter([*rows, None])
        row = next(coming)
        for end in self.ends:
            while row is not None and row.at.timestamp() <= end:
                last, row = row, next(coming)
            is_known = last is not None and end - last.at.timestamp() < max(HOLDS_FOR * last.span_s, self.step_s)
            found.append(last.facts if last is not None and is_known else None)
        return found

    def growth(self, rows: Sequence[Any]) -> Line:
        """Return the messages emitted per second in each interval."""
        grown, known_s = [0.0] * self.count, [0.0] * self.count
        known = [row for row in rows if row.facts.get("emitted") is not None]
        for before, after in pairwise(known):
            span_s = (after.at - before.at).total_seconds()
            if span_s > HOLDS_FOR * max(after.span_s, self.step_s):
                continue
            rate = max(after.facts["emitted"] - before.facts["emitted"], 0) / span_s
            for n, overlap_s in self._overlaps(before.at.timestamp(), after.at.timestamp()):
                grown[n] += rate * overlap_s
                known_s[n] += overlap_s
        return [round(a / b, 3) if b else None for a, b in zip(grown, known_s, strict=True)]

    def _overlaps(self, begin_s: float, end_s: float) -> Iterator[tuple[int, float]]:
        """Yield the intervals that a span of time touches, and for how long."""
        first = max(int((begin_s - self.begin) // self.step_s), 0)
        for n in range(first, self.count):
            lower = self.begin + n * self.step_s
            overlap_s = min(end_s, lower + self.step_s) - max(begin_s, lower)
            if overlap_s <= 0:
                break
            yield n, overlap_s


def names_in(facts: Mapping[str, Any]) -> set[str]:
    """Return the destinations that a row is about."""
    return {name for part in ("destinations", "verdicts", "causes") for name in facts.get(part) or {}}
