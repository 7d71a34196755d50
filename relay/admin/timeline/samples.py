"""Measurements over time: written every fifteen seconds, thinned out after six hours, deleted after thirty days.

| relay      | a row holds                                                                                     |
|------------|-------------------------------------------------------------------------------------------------|
| empty      | the state of the outbox at this moment: one relay measures it for all                           |
| a relay's  | what this relay did in the `span_s` seconds before: deliveries by destination and verdict, and   |
|            | the latencies from commit to delivery, counted in classes                                       |

So the measurements survive restarts, and cost one small row for each active relay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from outbox.tables import tables
from relay.admin.access.queries import since
from relay.decide.verdict import State

EVERY_S = 15
COARSE_S = 300
FINE_FOR = timedelta(hours=6)
KEPT_FOR = timedelta(days=30)
WHOLE = ""  # the relay name of rows about the whole outbox
POINTS = 240  # the maximum number of points of a series
# The upper bounds of the latency classes, in seconds; the last class has none.
LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


@dataclass(frozen=True)
class Did:
    """What a relay did in a span of time.

    Args:
        verdicts: Destination → verdict (``delivered``, ``retry``, ``dead``, …) → deliveries.
        latencies: The counts of deliveries in the classes of `LATENCY_BOUNDS_S`, by their time since the commit.
    """

    verdicts: dict[str, dict[str, float]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"verdicts": self.verdicts, "latencies": self.latencies}


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
    """Measurements at even intervals.

    Args:
        at: The times, in seconds since 1970.
        step_s: The interval, in seconds.
        lines: Name → a value for each time; ``None`` without a measurement.
        destinations: Destination → the same for this destination.
    """

    at: list[int]
    step_s: int
    lines: dict[str, list[float | None]]
    destinations: dict[str, dict[str, list[float | None]]]


def store(connection: sa.Connection, at: datetime, relay: str, span_s: float, facts: dict[str, Any]) -> None:
    """Write a sample; if the moment has one already, keep that one.

    Args:
        connection: The connection whose transaction writes it.
        at: The end of the measured span.
        relay: The relay's name; `WHOLE` for the whole outbox.
        span_s: The length of the measured span, in seconds.
        facts: `Did.as_json`, or the state of the outbox.
    """
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(tables().sample)
    values = {"at": at, "relay": relay, "span_s": span_s, "facts": facts}
    connection.execute(insert.values(values).on_conflict_do_nothing(index_elements=["at", "relay"]))


def thin_out(connection: sa.Connection, at: datetime, batch: int) -> int:
    """Delete samples that are too old, and merge old ones; return how many rows were removed.

    Args:
        connection: The connection whose transaction does it.
        at: The time by the database's clock.
        batch: The maximum number of rows to read.
    """
    s = tables().sample
    forgotten = connection.execute(sa.delete(s).where(~since(connection, s.c.at, at - KEPT_FOR))).rowcount
    fine = s.c.span_s < COARSE_S / 2
    end = floor(at - FINE_FOR, COARSE_S)
    query = sa.select(s).where(~since(connection, s.c.at, end + timedelta(milliseconds=1)), fine)
    groups: defaultdict[tuple[datetime, str], list[Any]] = defaultdict(list)
    for row in connection.execute(query.order_by(s.c.at).limit(batch)):
        groups[_end(row.at, COARSE_S), row.relay].append(row)
    for (end, relay), rows in groups.items():
        for row in rows:
            connection.execute(sa.delete(s).where(s.c.at == row.at, s.c.relay == relay))
        facts = rows[-1].facts if relay == WHOLE else _sum(row.facts for row in rows).as_json()
        store(connection, end, relay, COARSE_S, facts)
    return forgotten + sum(len(rows) for rows in groups.values())


def floor(at: datetime, step_s: int) -> datetime:
    """Return the last full step before an instant."""
    return datetime.fromtimestamp(int(at.timestamp()) // step_s * step_s, UTC)


def _end(at: datetime, step_s: int) -> datetime:
    """Return the end of the step that contains an instant: a sample is about the time before it."""
    return datetime.fromtimestamp(-(-at.timestamp() // step_s) * step_s, UTC)


# ---------------------------------------------------------------------------------------------------------- reading


def pace(connection: sa.Connection, begin: datetime) -> Pace | None:
    """Return the rates since an instant; ``None`` without samples."""
    rows = _rows(connection, begin)
    if not rows:
        return None
    whole = [row for row in rows if row.relay == WHOLE]
    done = [row for row in rows if row.relay != WHOLE]
    span_s = max((rows[-1].at - rows[0].at).total_seconds() + EVERY_S, EVERY_S)
    total = _sum(row.facts for row in done)
    delivered, failed = _totals(total.verdicts)
    return Pace(
        emitted_per_s=_growth(whole),
        delivered_per_s=round(delivered / span_s, 3),
        failed_per_s=round(failed / span_s, 3),
        p50_s=quantile(total.latencies, 0.5),
        p99_s=quantile(total.latencies, 0.99),
    )


def series(connection: sa.Connection, begin: datetime, end: datetime) -> Series:
    """Return the measurements between two instants, in at most `POINTS` steps.

    Args:
        connection: To the outbox's database.
        begin: The first instant.
        end: The last one.
    """
    step_s = _step((end - begin).total_seconds())
    first = int(begin.timestamp()) // step_s * step_s
    ends = list(range(first + step_s, int(end.timestamp()) // step_s * step_s + 1, step_s))
    rows: defaultdict[int, list[Any]] = defaultdict(list)
    for row in _rows(connection, begin):
        rows[int(_end(row.at, step_s).timestamp())].append(row)
    names = sorted({name for each in rows.values() for row in each for name in _destinations(row)})
    lines: dict[str, list[float | None]] = {name: [] for name in LINES}
    split: dict[str, dict[str, list[float | None]]] = {name: {key: [] for key in SPLIT} for name in names}
    before: list[Any] = []
    for at in ends:
        here = rows.get(at, [])
        whole = [row for row in here if row.relay == WHOLE]
        total = _sum(row.facts for row in here if row.relay != WHOLE)
        state = whole[-1].facts if whole else {}
        step = {"emitted_per_s": _growth([*before, *whole]), **_done(total.verdicts, step_s, is_measured=bool(here))}
        step |= {"p50_s": quantile(total.latencies, 0.5), "p99_s": quantile(total.latencies, 0.99)}
        _add(lines, step | {gauge: state.get(gauge) for gauge in GAUGES})
        for name in names:
            done = _done({name: total.verdicts.get(name, {})}, step_s, is_measured=bool(here))
            its_state = (state.get("destinations") or {}).get(name, {})
            _add(split[name], done | {gauge: its_state.get(gauge) for gauge in ("waiting", "dead")})
        before = whole[-1:] or before
    return Series(ends, step_s, lines, split)


GAUGES = ("waiting", "dead", "unrouted", "due_age_s")
LINES = ("emitted_per_s", "delivered_per_s", "failed_per_s", "died", "p50_s", "p99_s", *GAUGES)
SPLIT = ("delivered_per_s", "failed_per_s", "died", "waiting", "dead")


def _done(verdicts: dict[str, dict[str, float]], step_s: int, *, is_measured: bool) -> dict[str, float | None]:
    """Return the rates of one step, by the names of their lines."""
    if not is_measured:
        return dict.fromkeys(("delivered_per_s", "failed_per_s", "died"))
    delivered, failed = _totals(verdicts)
    died = sum(each.get(State.DEAD, 0) for each in verdicts.values())
    return {"delivered_per_s": round(delivered / step_s, 3), "failed_per_s": round(failed / step_s, 3), "died": died}


def _add(lines: dict[str, list[float | None]], values: dict[str, float | None]) -> None:
    for name, value in values.items():
        lines[name].append(value)


def quantile(counts: Sequence[float], share: float) -> float | None:
    """Return a quantile of the latencies, from the counts in their classes.

    Args:
        counts: The count in each class of `LATENCY_BOUNDS_S`.
        share: The share below the result, from 0 to 1.

    Example:
        >>> quantile([0, 10], 0.5)
        0.0075
    """
    total = sum(counts)
    if not total:
        return None
    wanted, seen, lower = share * total, 0.0, 0.0
    for count, upper in zip(counts, LATENCY_BOUNDS_S, strict=False):
        if count and seen + count >= wanted:
            return round(lower + (upper - lower) * (wanted - seen) / count, 6)
        seen, lower = seen + count, upper
    return LATENCY_BOUNDS_S[-1]


def _rows(connection: sa.Connection, begin: datetime) -> Sequence[Any]:
    s = tables().sample
    return connection.execute(sa.select(s).where(since(connection, s.c.at, begin)).order_by(s.c.at)).all()


def _step(span_s: float) -> int:
    """Return the shortest step of a round length that is long enough."""
    steps = (15, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600)
    return next((step for step in steps if span_s / step <= POINTS), steps[-1])


def _destinations(row: Any) -> Iterator[str]:
    yield from row.facts.get("destinations" if row.relay == WHOLE else "verdicts") or {}


def _growth(rows: Sequence[Any]) -> float | None:
    """Return the messages emitted per second between the first and the last of these samples."""
    known = [row for row in rows if row.facts.get("emitted") is not None]
    if len(known) < 2:
        return None
    span_s = (known[-1].at - known[0].at).total_seconds()
    grown = known[-1].facts["emitted"] - known[0].facts["emitted"]
    return round(max(grown, 0) / span_s, 3) if span_s else None


def _sum(facts: Iterable[dict[str, Any]]) -> Did:
    verdicts: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    latencies = [0.0] * (len(LATENCY_BOUNDS_S) + 1)
    for each in facts:
        for name, counts in (each.get("verdicts") or {}).items():
            for verdict, count in counts.items():
                verdicts[name][verdict] += count
        for index, count in enumerate((each.get("latencies") or [])[: len(latencies)]):
            latencies[index] += count
    return Did({name: dict(counts) for name, counts in verdicts.items()}, latencies)


def _totals(verdicts: dict[str, dict[str, float]]) -> tuple[float, float]:
    """Return the taken and the failed deliveries; a dead letter counts as failed."""
    delivered = sum(each.get(State.DELIVERED, 0) for each in verdicts.values())
    return delivered, sum(each.get(State.RETRY, 0) + each.get(State.DEAD, 0) for each in verdicts.values())
