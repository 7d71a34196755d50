"""Samples over time are merged without losing a count, deleted in the end, and read at even intervals."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import Database
from support.scene import Scene, Taker, rejecting, to

from outbox.tables import tables
from relay.admin.timeline.samples import EVERY_S, KEPT_FOR, TIERS, WHOLE, Counts, activity_in, as_facts, store, thin_out
from relay.admin.timeline.series import CAUSES_SHOWN, pace, series
from relay.observe.causes import CAUSES, CAUSES_IN_A_SAMPLE, OTHER
from relay.observe.metrics import Metrics

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CAUSES_OF_A: Any = {"a": {"answered 500": {"failed": 3.0}, "answered 422": {"failed": 1.0, "dead": 1.0}}}


def did(
    delivered: float = 30.0, died: float = 1.0, *, causes: Mapping[str, Any] | None = None, **others: float
) -> dict[str, Any]:
    failed: dict[str, Any] = dict(CAUSES_OF_A if causes is None else causes)
    counts = {name: Counts({"delivered": count}) for name, count in others.items()}
    counts["a"] = Counts({"delivered": delivered, "dead": died}, [10.0, 20.0])
    for name, by_cause in failed.items():
        counts.setdefault(name, Counts()).causes = by_cause
    return as_facts(counts)


def write(connection: sa.Connection, begin: datetime, count: int, *, relays: int = 1) -> None:
    for n in range(1, count + 1):
        at = begin + timedelta(seconds=n * EVERY_S)
        for relay in range(relays):
            store(connection, at, f"r{relay}", EVERY_S, did())
        store(connection, at, WHOLE, EVERY_S, {"emitted": n * 30, "waiting": n})


def rows(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(tables().sample)) or 0


def total(line: list[float | None]) -> float:
    return sum(value or 0 for value in line)


@pytest.mark.parametrize(("age", "step_s"), TIERS)
def test_old_samples_are_merged_and_no_count_is_lost(database: Database, age: timedelta, step_s: int) -> None:
    begin = AT - age - timedelta(seconds=2 * step_s)
    count = 2 * step_s // EVERY_S
    with database.engine.begin() as connection:
        write(connection, begin, count, relays=2)
        before = series(connection, begin, AT, step_s)
        merged = thin_out(connection, AT, 100_000)
        assert merged >= 3 * count
        after = series(connection, begin, AT, step_s)
        assert rows(connection) == 4
        assert thin_out(connection, AT, 100_000) == 0
    for found in (before, after):
        assert total(found.destinations["a"]["died"]) == 2 * count
        assert total(found.died_by_cause["answered 422"]) == 2 * count
        assert total(found.failed_by_cause["answered 500"]) * found.step_s == pytest.approx(6 * count)
        assert total(found.lines["delivered_per_s"]) * found.step_s == pytest.approx(60 * count)


def test_a_batch_that_ends_within_a_step_loses_nothing(database: Database) -> None:
    age, step_s = TIERS[0]
    begin = AT - age - timedelta(seconds=3 * step_s)
    with database.engine.begin() as connection:
        write(connection, begin, 60)
        while thin_out(connection, AT, 50):
            continue
        assert rows(connection) == 6
        assert total(series(connection, begin, AT, step_s).destinations["a"]["died"]) == 60


def test_merged_rows_keep_few_causes_and_the_count_of_all(database: Database) -> None:
    begin = AT - TIERS[0][0] - HOUR
    with database.engine.begin() as connection:
        for n in range(20):
            causes = {"a": {f"cause {n}": {"failed": float(100 - n)}}}
            store(connection, begin + timedelta(seconds=n + 1), "r", 1, did(causes=causes))
        thin_out(connection, AT, 1000)
        (facts,) = connection.scalars(sa.select(tables().sample.c.facts)).all()
        assert len(facts["causes"]["a"]) == CAUSES_IN_A_SAMPLE + 1
        found = series(connection, begin - HOUR, AT, TIERS[0][1])
    assert list(found.failed_by_cause) == [*(f"cause {n}" for n in range(CAUSES_SHOWN)), OTHER]
    assert sum(map(total, found.failed_by_cause.values())) * found.step_s == pytest.approx(sum(range(81, 101)), abs=1)


def test_samples_that_are_too_old_are_deleted(database: Database) -> None:
    with database.engine.begin() as connection:
        write(connection, AT - KEPT_FOR - HOUR, 3)
        assert thin_out(connection, AT, 10_000) == 6
        assert rows(connection) == 0


def test_the_pace_is_that_of_the_last_samples(database: Database) -> None:
    with database.engine.begin() as connection:
        assert pace(connection, AT) is None
        write(connection, AT, 4)
        found = pace(connection, AT)
    assert found is not None
    assert (found.emitted_per_s, found.delivered_per_s, found.failed_per_s) == (
        2.0,
        2.0,
        pytest.approx(4 / 15, abs=1e-3),
    )
    assert found.p50_s is not None
    assert 0.005 <= found.p50_s <= 0.01


def test_rows_that_are_written_a_moment_before_or_after_a_step_give_an_even_line(database: Database) -> None:
    with database.engine.begin() as connection:
        for n in range(40):
            odd_s = (0.0, 1.4, -1.4)[n % 3]
            at = AT + timedelta(seconds=n * EVERY_S + odd_s)
            store(connection, at, "r", EVERY_S, did(delivered=30.0, died=0.0, causes={}))
            store(connection, at, WHOLE, EVERY_S, {"emitted": n * 30})
        found = series(connection, AT - timedelta(seconds=EVERY_S), AT + timedelta(minutes=9), EVERY_S)
    assert found.lines["delivered_per_s"][:-2] == [2.0] * (len(found.at) - 2)
    assert found.lines["emitted_per_s"] == [None] + [2.0] * (len(found.at) - 1)


def test_what_relays_may_still_report_is_not_shown_as_nothing(database: Database) -> None:
    with database.engine.begin() as connection:
        write(connection, AT, 8)
        store(connection, AT + timedelta(seconds=9 * EVERY_S), WHOLE, EVERY_S, {"emitted": 300, "waiting": 1})
        late = did(causes={"a": {"late": {"dead": 99.0}}})
        store(connection, AT + timedelta(seconds=9 * EVERY_S), "late", EVERY_S, late)
        found = series(connection, AT, AT + timedelta(seconds=9 * EVERY_S + 5), EVERY_S)
    assert found.lines["delivered_per_s"][-1] is None
    assert "late" not in found.died_by_cause
    assert found.lines["delivered_per_s"][-2] == 2.0
    assert found.lines["waiting"][-1] == 1


def test_one_destination_has_a_series_of_its_own(database: Database) -> None:
    with database.engine.begin() as connection:
        causes = CAUSES_OF_A | {"b": {"answered 404": {"failed": 15.0}}}
        store(connection, AT, "r", EVERY_S, did(causes=causes, b=45.0))
        begin, end = AT - timedelta(minutes=2), AT + timedelta(minutes=2)
        all_, only = (series(connection, begin, end, EVERY_S, destination=name) for name in (None, "b"))
    assert max(only.lines["delivered_per_s"], key=lambda value: value or 0) == 3.0
    assert only.lines == all_.destinations["b"]
    assert set(only.failed_by_cause) == {"answered 404"}
    assert set(all_.failed_by_cause) == {"answered 404", "answered 500", "answered 422"}
    assert (only.died_by_cause, only.destinations) == ({}, {})


async def test_a_relay_measures_each_destination_and_the_causes_of_its_failures(database: Database) -> None:
    scene = Scene(database)
    scene.emit(6)
    takers = {"good": to(Taker(), events=["*"]), "bad": to(Taker(rejecting(1, 3)), events=["*"])}
    await scene.drain(takers)
    with database.engine.connect() as connection:
        found = activity_in(connection.execute(sa.select(tables().sample).where(tables().sample.c.relay != WHOLE)))
    (counts,) = found["bad"].causes.values()
    assert counts == {"failed": 2, "dead": 2}
    assert not found["good"].causes
    assert sum(found["good"].latencies) == pytest.approx(4, abs=0.01)
    assert found["bad"].verdicts["dead"] == 2


def test_causes_beyond_a_limit_share_one_series_and_one_entry() -> None:
    metrics = Metrics()
    for n in range(CAUSES + 10):
        metrics.failed("api", f"cause {chr(97 + n // 10)}{'x' * n}")
    text = metrics.text().decode()
    assert text.count("outbox_failed_attempts_total{") == CAUSES + 1
    assert f'outbox_failed_attempts_total{{cause="{OTHER}",destination="api"}} 10.0' in text
    kept = metrics.causes.take()["api"]
    assert len(kept) == CAUSES_IN_A_SAMPLE + 1
    assert kept[OTHER]["failed"] == CAUSES + 10 - CAUSES_IN_A_SAMPLE
    assert metrics.causes.take() == {}


def test_a_cause_leaves_out_what_varies_and_passwords() -> None:
    metrics = Metrics()
    for n in range(3):
        metrics.failed("api", f"no order 'o-{n}' at postgresql://app:hunter2@db/x\n")
        metrics.count("api", "dead", reason=f"answered 50{n}")
    assert metrics.causes.take() == {
        "api": {
            "no order … at postgresql://app:***@db/x": {"failed": 3},
            "answered 500": {"dead": 1},
            "answered 501": {"dead": 1},
            "answered 502": {"dead": 1},
        }
    }


def test_a_gap_without_measurements_is_a_gap_in_the_plot(database: Database) -> None:
    with database.engine.begin() as connection:
        write(connection, AT, 4)
        write(connection, AT + timedelta(minutes=20), 4)
        found = series(connection, AT, AT + timedelta(minutes=25), EVERY_S)
    gap = slice(4, 20 * 60 // EVERY_S)
    for name in ("waiting", "emitted_per_s", "delivered_per_s"):
        assert set(found.lines[name][gap]) == {None}, name
        assert found.lines[name][1] is not None


def test_failures_that_are_counted_together_are_counted_in_full() -> None:
    metrics = Metrics()
    metrics.causes.count("api", "failed", "answered 503", 7)
    metrics.causes.count("api", "failed", "answered 503", 2)
    assert 'outbox_failed_attempts_total{cause="answered 503",destination="api"} 9.0' in metrics.text().decode()
    assert metrics.causes.take() == {"api": {"answered 503": {"failed": 9}}}
