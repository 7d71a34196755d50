"""Measurements over time: written every fifteen seconds, merged in two steps, deleted after thirty days.

| relay     | a row holds                                                                                      |
|-----------|--------------------------------------------------------------------------------------------------|
| empty     | the state of the outbox at this moment, which one relay measures for all                         |
| a relay's | what this relay did in the `span_s` seconds before, by destination: verdicts, latencies from     |
|           | commit to delivery, counted in classes, and the causes of failures                               |
| ``*``     | the same for all relays: merged rows                                                             |

So the measurements survive restarts, and each active relay writes one small row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import sqlalchemy as sa

from outbox.tables import insert, tables
from relay.admin.access.queries import since
from relay.observe.causes import CAUSES_IN_A_SAMPLE, OTHER, What

EVERY_S = 15
KEPT_FOR = timedelta(days=30)
TIERS = ((timedelta(minutes=75), 300), (timedelta(days=1), 3600))  # (from this age on, the seconds that a row covers)
WHOLE, ALL = "", "*"  # the relay name of rows about the whole outbox, and of rows merged from those of all relays
PARTS = ("verdicts", "latencies", "causes")  # the parts of a row, each by destination

Key = TypeVar("Key")


@dataclass
class Counts:
    """What relays did at one destination in a span of time.

    Args:
        verdicts: Verdict (``delivered``, ``retry``, ``dead``, …) → deliveries.
        latencies: The counts of deliveries in the classes of `LATENCY_BUCKETS_S`, by their time since the commit; empty
            classes at the end may be left out.
        causes: Cause → ``failed`` (attempts) and ``dead`` (deliveries) → count.
    """

    verdicts: dict[str, float] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    causes: dict[str, dict[What, float]] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        add_counts(self.verdicts, other.verdicts)
        self.latencies = [a + b for a, b in zip_longest(self.latencies, other.latencies, fillvalue=0.0)]
        for cause, counts in other.causes.items():
            add_counts(self.causes.setdefault(cause, {}), counts)

    def of(self, what: What) -> dict[str, float]:
        """Return the count of one kind of failure, by cause."""
        return {cause: counts[what] for cause, counts in self.causes.items() if what in counts}

    def keep_the_commonest_causes(self) -> None:
        """Count all causes except the most common ones as one."""
        common = commonest({cause: sum(counts.values()) for cause, counts in self.causes.items()}, CAUSES_IN_A_SAMPLE)
        kept: dict[str, dict[What, float]] = {}
        for cause, counts in self.causes.items():
            add_counts(kept.setdefault(cause if cause in common else OTHER, {}), counts)
        self.causes = kept


Activity = dict[str, Counts]  # what relays did, by destination


def activity_in(rows: Iterable[Any]) -> Activity:
    """Return the sum of what rows hold."""
    found: defaultdict[str, Counts] = defaultdict(Counts)
    for row in rows:
        parts = {part: row.facts[part] for part in PARTS if part in row.facts}
        for name in {name for by_name in parts.values() for name in by_name}:
            found[name].add(Counts(**{part: by_name[name] for part, by_name in parts.items() if name in by_name}))
    return dict(found)


def as_facts(activity: Activity) -> dict[str, Any]:
    """Return an activity in the form in which a row holds it."""
    made = {name: asdict(counts) for name, counts in activity.items()}
    return {part: {name: counts[part] for name, counts in made.items() if counts[part]} for part in PARTS}


def add_counts(to: dict[Key, float], counts: Mapping[Key, float]) -> None:
    """Add counts by their keys."""
    for key, count in counts.items():
        to[key] = to.get(key, 0) + count


def commonest(counts: Mapping[str, float], limit: int) -> list[str]:
    """Return the causes with the largest counts."""
    return sorted(counts.keys() - {OTHER}, key=lambda cause: (-counts[cause], cause))[:limit]


def store(connection: sa.Connection, at: datetime, relay: str, span_s: float, facts: dict[str, Any]) -> None:
    """Write a sample; if there is already one for this moment, keep the existing one.

    Args:
        connection: The connection whose transaction writes it.
        at: The end of the measured span.
        relay: The relay's name; `WHOLE` for the whole outbox.
        span_s: The length of the measured span, in seconds.
        facts: An activity (`as_facts`), or the state of the outbox.
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
    """Merge rows before an instant: for each step into one row of the outbox, and one of all relays."""
    s = tables().sample
    end = datetime.fromtimestamp(before.timestamp() // step_s * step_s, UTC)  # the last full step
    query = sa.select(s).where(~since(connection, s.c.at, end + timedelta(milliseconds=1)), s.c.span_s < step_s / 2)
    found = connection.execute(query.order_by(s.c.at).limit(batch)).all()
    groups: defaultdict[datetime, list[Any]] = defaultdict(list)
    for row in found:
        groups[end_of_step(row.at, step_s)].append(row)
    if len(found) == batch and len(groups) > 1:
        del groups[max(groups)]  # the rest of this group's rows has not been read
    for end, rows in groups.items():
        connection.execute(sa.delete(s).where(sa.or_(*(sa.and_(s.c.at == r.at, s.c.relay == r.relay) for r in rows))))
        whole = [row for row in rows if row.relay == WHOLE]
        if whole:
            store(connection, end, WHOLE, step_s, whole[-1].facts)
        if len(whole) < len(rows):
            activity = activity_in(rows)
            for counts in activity.values():
                counts.keep_the_commonest_causes()
            store(connection, end, ALL, step_s, as_facts(activity))
    return sum(len(rows) for rows in groups.values())


def end_of_step(at: datetime, step_s: int) -> datetime:
    """Return the end of the step that contains an instant: a sample covers the time before its instant."""
    return datetime.fromtimestamp(-(-at.timestamp() // step_s) * step_s, UTC)
