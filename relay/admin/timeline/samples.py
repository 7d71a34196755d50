"""Measurements over time: written every fifteen seconds, merged in two steps, deleted after thirty days.

| relay     | a row holds                                                                                      |
|-----------|--------------------------------------------------------------------------------------------------|
| empty     | the state of the outbox at this moment: one relay measures it for all                            |
| a relay's | what this relay did in the `span_s` seconds before, by destination: verdicts, latencies from     |
|           | commit to delivery, counted in classes, and the causes of failures                               |
| ``*``     | the same for all relays: merged rows                                                             |

So the measurements survive restarts, and cost one small row for each active relay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from outbox.tables import insert, tables
from relay.admin.access.queries import since
from relay.observe.causes import CAUSES_IN_A_SAMPLE, OTHER, Counts

EVERY_S = 15
KEPT_FOR = timedelta(days=30)
TIERS = ((timedelta(minutes=75), 300), (timedelta(days=1), 3600))  # from this age on: the seconds that a row stands for
WHOLE, ALL = "", "*"  # the relay name of rows about the whole outbox, and of rows that are merged from all relays'


@dataclass
class Activity:
    """What relays did in a span of time, by destination.

    Args:
        verdicts: Destination → verdict (``delivered``, ``retry``, ``dead``, …) → deliveries.
        latencies: Destination → the counts of deliveries in the classes of `LATENCY_BUCKETS_S`, by their time since the
            commit; classes at the end that are empty may be left out.
        causes: Destination → cause → ``failed`` (attempts) and ``dead`` (deliveries) → count.
    """

    verdicts: dict[str, dict[str, float]] = field(default_factory=dict)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    causes: Counts = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        latencies = {name: _trimmed(counts) for name, counts in self.latencies.items()}
        return {"verdicts": self.verdicts, "latencies": latencies, "causes": self.causes}

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add what a row holds."""
        for name, counts in (facts.get("verdicts") or {}).items():
            add_counts(self.verdicts.setdefault(name, {}), counts)
        for name, counts in (facts.get("latencies") or {}).items():
            add_latencies(self.latencies.setdefault(name, []), counts)
        for name, causes in (facts.get("causes") or {}).items():
            for cause, counts in causes.items():
                add_counts(self.causes.setdefault(name, {}).setdefault(cause, {}), counts)

    def keep_the_commonest_causes(self) -> None:
        """Count all but the commonest causes of each destination as one."""
        for name, causes in self.causes.items():
            named = sorted(set(causes) - {OTHER}, key=lambda cause: (-sum(causes[cause].values()), cause))
            common = set(named[:CAUSES_IN_A_SAMPLE])
            kept: dict[str, Any] = {}
            for cause, counts in causes.items():
                add_counts(kept.setdefault(cause if cause in common else OTHER, {}), counts)
            self.causes[name] = kept


def add_counts(to: dict[Any, float], counts: Mapping[Any, float]) -> None:
    """Add counts by their keys."""
    for key, count in counts.items():
        to[key] = to.get(key, 0) + count


def add_latencies(to: list[float], counts: Sequence[float], share: float = 1.0) -> None:
    """Add a share of the counts in the latency classes."""
    known = len(to)
    to[: len(counts)] = [before + count * share for before, count in zip(to, counts, strict=False)]
    to.extend([count * share for count in counts[known:]])


def _trimmed(counts: Sequence[float]) -> list[float]:
    last = max((index for index, count in enumerate(counts) if count), default=-1)
    return [round(count, 3) for count in counts[: last + 1]]


def store(connection: sa.Connection, at: datetime, relay: str, span_s: float, facts: dict[str, Any]) -> None:
    """Write a sample; if the moment has one already, keep that one.

    Args:
        connection: The connection whose transaction writes it.
        at: The end of the measured span.
        relay: The relay's name; `WHOLE` for the whole outbox.
        span_s: The length of the measured span, in seconds.
        facts: `Activity.as_json`, or the state of the outbox.
    """
    values = {"at": at, "relay": relay, "span_s": span_s, "facts": facts}
    connection.execute(
        insert(connection, tables().sample).values(values).on_conflict_do_nothing(index_elements=["at", "relay"])
    )


def thin_out(connection: sa.Connection, at: datetime, batch: int) -> int:
    """Delete samples that are too old, and merge old ones; return how many rows were removed.

    Args:
        connection: The connection whose transaction does it.
        at: The time by the database's clock.
        batch: The maximum number of rows to read of each age.
    """
    s = tables().sample
    forgotten = connection.execute(sa.delete(s).where(~since(connection, s.c.at, at - KEPT_FOR))).rowcount
    return forgotten + sum(_merge(connection, at - age, step_s, batch) for age, step_s in TIERS)


def _merge(connection: sa.Connection, before: datetime, step_s: int, batch: int) -> int:
    """Merge rows before an instant into one for each step of the outbox, and one of all relays."""
    s = tables().sample
    end = floor(before, step_s)
    query = sa.select(s).where(~since(connection, s.c.at, end + timedelta(milliseconds=1)), s.c.span_s < step_s / 2)
    found = connection.execute(query.order_by(s.c.at).limit(batch)).all()
    groups: defaultdict[datetime, list[Any]] = defaultdict(list)
    for row in found:
        groups[end_of_step(row.at, step_s)].append(row)
    if len(found) == batch and len(groups) > 1:
        del groups[max(groups)]  # the rest of its rows has not been read
    for end, rows in groups.items():
        connection.execute(sa.delete(s).where(sa.or_(*(sa.and_(s.c.at == r.at, s.c.relay == r.relay) for r in rows))))
        whole = [row for row in rows if row.relay == WHOLE]
        if whole:
            store(connection, end, WHOLE, step_s, whole[-1].facts)
        if len(whole) < len(rows):
            activity = Activity()
            for row in rows:
                activity.add(row.facts)
            activity.keep_the_commonest_causes()
            store(connection, end, ALL, step_s, activity.as_json())
    return sum(len(rows) for rows in groups.values())


def floor(at: datetime, step_s: int) -> datetime:
    """Return the last full step before an instant."""
    return datetime.fromtimestamp(int(at.timestamp()) // step_s * step_s, UTC)


def end_of_step(at: datetime, step_s: int) -> datetime:
    """Return the end of the step that contains an instant: a sample is about the time before it."""
    return datetime.fromtimestamp(-(-at.timestamp() // step_s) * step_s, UTC)
