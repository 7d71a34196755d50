"""What was measured over time: thinned out without losing a count, and forgotten in the end."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from support.databases import Database

from outbox.tables import tables
from relay.admin.timeline.samples import (
    COARSE_S,
    EVERY_S,
    FINE_FOR,
    KEPT_FOR,
    WHOLE,
    Did,
    pace,
    series,
    store,
    thin_out,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def write(connection: sa.Connection, begin: datetime, count: int) -> None:
    did = Did({"a": {"delivered": 30.0, "dead": 1.0}}, [10.0, 20.0] + [0.0] * 14).as_json()
    for n in range(1, count + 1):
        at = begin + timedelta(seconds=n * EVERY_S)
        store(connection, at, "r", EVERY_S, did)
        store(connection, at, WHOLE, EVERY_S, {"emitted": n * 30, "waiting": n})


def rows(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(tables().sample)) or 0


def test_old_samples_are_put_together_and_no_count_is_lost(database: Database) -> None:
    begin = AT - FINE_FOR - timedelta(seconds=2 * COARSE_S)
    with database.engine.begin() as connection:
        write(connection, begin, 40)
        before = series(connection, begin, AT)
        assert thin_out(connection, AT, 10_000) == 80
        after = series(connection, begin, AT)
        assert rows(connection) == 4
        assert thin_out(connection, AT, 10_000) == 0
    for found in (before, after):
        assert sum(value or 0 for value in found.destinations["a"]["died"]) == 40
        assert sum(value or 0 for value in found.lines["delivered_per_s"]) * found.step_s == pytest.approx(1200)


def test_what_is_too_old_is_forgotten(database: Database) -> None:
    with database.engine.begin() as connection:
        write(connection, AT - KEPT_FOR - timedelta(hours=1), 3)
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
        pytest.approx(1 / 15, abs=1e-3),
    )
    assert found.p50_s is not None
    assert 0.005 <= found.p50_s <= 0.01
