"""One relay samples the backlog for all: exactly where it is small, cheaply where it is large, and never stale."""

from __future__ import annotations

import itertools
import sqlite3
from statistics import fmean

import pytest
import sqlalchemy as sa
from support.databases import Database
from support.plans import Plan, asked
from support.scene import Scene, Taker, rejecting, to
from support.waiting import eventually_async

from relay.admin import housekeeping
from relay.admin.access.queries import snapshot
from relay.admin.timeline.backlog import sample
from relay.admin.timeline.floors import Floors
from relay.databases.postgresql import backlog as on_postgres
from relay.databases.postgresql.backlog import EXACT, OLDEST_OF_EACH_SHARD, PAGES
from relay.databases.sqlite import backlog as on_sqlite
from relay.databases.store import backlog
from relay.observe.backlog import STALE_AFTER_S, Backlog, BacklogMetrics
from relay.observe.metrics import Metrics

FILL = """
INSERT INTO outbox_message (id, type, source, data, state, due_at)
SELECT outbox_uuid7(), 'type.' || n % 10, 'sql', '{}',
       (ARRAY['held', 'ready', 'ready', 'unrouted', 'ready',
              'scheduled', 'ready', 'ready', 'held', 'ready'])[1 + n % 10],
       CASE WHEN n % 10 = 5 THEN now() END
FROM generate_series(1, :count) AS n
"""
SET_ASIDE = """
INSERT INTO outbox_delivery (message_id, destination, shard, position, state, due_at, reason, changed_at)
SELECT id, 'a', shard, position, (ARRAY['dead', 'parked', 'retry'])[1 + position % 3],
       CASE WHEN position % 3 = 2 THEN now() END, 'why', now()
FROM outbox_message WHERE state = 'held'
"""
FILL_SQLITE = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO outbox_message (id, position, type, source, data, state, due_at)
SELECT printf('01900000-0000-7000-8000-%012x', n), n * :gap, 'type.' || (n % 10), 'sql', '{}',
       CASE n % 10 WHEN 0 THEN 'held' WHEN 8 THEN 'held'
                   WHEN 3 THEN 'unrouted' WHEN 5 THEN 'scheduled' ELSE 'ready' END,
       CASE WHEN n % 10 = 5 THEN '2026-03-01 12:00:00' END
FROM numbers
"""
SET_ASIDE_SQLITE = """
INSERT INTO outbox_delivery (message_id, destination, shard, position, state, reason)
SELECT id, 'a', shard, position, CASE m.type WHEN 'type.0' THEN 'dead' ELSE 'parked' END, 'why'
FROM outbox_message AS m WHERE state = 'held'
"""
LATER_HALF_SQLITE = (
    "UPDATE outbox_message SET state = 'scheduled', due_at = '2026-03-01 12:00:00' "
    "WHERE state = 'ready' AND position > :half"
)
REGISTERED = "INSERT INTO outbox_destination (name, kind, events, generation) VALUES ('a', 'listener', '[\"*\"]', 1)"
SHARDS = 64


def sampled(database: Database, floors: Floors | None = None) -> Backlog:
    with snapshot(database.engine) as connection:
        return sample(connection, floors=floors)


def age_everything(database: Database, seconds: int) -> None:
    older = f"created_at - interval '{seconds} seconds'"
    if database.kind == "sqlite":
        older = f"strftime('%Y-%m-%d %H:%M:%f', created_at, '-{seconds} seconds')"
    database.execute(f"UPDATE outbox_message SET created_at = {older}")


async def test_an_empty_outbox_has_no_backlog(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    found = sampled(scene.database)
    assert found.oldest_due_s == found.unrouted == 0
    assert sum(found.messages.values()) == 0
    assert (found.destinations["a"].state, found.destinations["a"].dead) == ("healthy", 0)
    assert (found.relays_alive, found.shards_without_owner) == (0, SHARDS)


async def test_what_is_due_has_an_age_and_what_is_scheduled_or_paused_by_an_operator_has_none(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    scene.emit(3, delay=3600)
    assert sampled(scene.database).oldest_due_s == 0
    assert sampled(scene.database).destinations["a"].waiting["scheduled"] == 3
    scene.emit(2)
    age_everything(scene.database, 900)
    assert 900 <= sampled(scene.database).destinations["a"].oldest_due_s < 1000
    assert sampled(scene.database).destinations["a"].waiting["ready"] == 2
    scene.database.execute("UPDATE outbox_destination SET state = 'paused', paused_by = 'operator', reason = 'x'")
    paused = sampled(scene.database).destinations["a"]
    assert (paused.oldest_due_s, paused.paused_by_operator) == (0, True)


async def test_dead_letters_and_what_no_subscription_wants_are_counted(scene: Scene) -> None:
    scene.emit(3)
    await scene.drain({"a": to(Taker(rejecting(0, 1)), events=["work.*", "n.*", "*.*"])})
    found = sampled(scene.database)
    assert found.destinations["a"].dead == 2
    scene.database.execute("UPDATE outbox_destination SET events = '[\"other\"]'")
    scene.emit(4)
    await scene.drain({"a": to(Taker(), events=["other"])})
    assert sampled(scene.database).unrouted == 4


async def test_a_relay_shows_the_sample_while_it_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "SAMPLE_EVERY_S", 0.2)
    async with scene.relay({"a": Taker()}) as relay:
        await eventually_async(lambda: b"outbox_relays_alive 1.0" in relay.metrics.text())
        await eventually_async(lambda: b"outbox_shards_without_owner 0.0" in relay.metrics.text())
        assert b'outbox_destination_state{destination="a",state="healthy"} 1.0' in relay.metrics.text()
        assert b'outbox_emitted_messages_total{type="' not in relay.metrics.text()
        scene.emit(3)
        await eventually_async(lambda: b'outbox_emitted_messages_total{type="' in relay.metrics.text())


async def test_of_two_relays_one_shows_it(postgres_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "SAMPLE_EVERY_S", 0.2)
    scene = Scene(postgres_database)
    async with scene.relay({"a": Taker()}) as first, scene.relay({"a": Taker()}) as second:
        await eventually_async(lambda: b"outbox_relays_alive 2.0" in first.metrics.text())
        assert b"outbox_relays_alive 2.0" not in second.metrics.text()
        first.stop()
        await first.wait()
        await eventually_async(lambda: b"outbox_relays_alive 1.0" in second.metrics.text())


async def test_a_sample_that_is_old_is_shown_as_unknown(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    now = 0.0
    shown = BacklogMetrics(clock=lambda: now)
    metrics = Metrics()
    metrics.registry.unregister(metrics.backlog)
    metrics.registry.register(shown)
    shown.show(sampled(scene.database))
    assert b"outbox_unrouted_messages 0.0" in metrics.text()
    now = STALE_AFTER_S + 1
    assert b"outbox_unrouted_messages NaN" in metrics.text()
    assert b"outbox_backlog_sample_timestamp_seconds 1." in metrics.text()
    shown.hide()
    assert b"outbox_unrouted_messages NaN" not in metrics.text()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [0, 1_000, 200_000])
def test_a_sample_costs_the_same_however_much_waits(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(on_postgres, "BUDGET_MS", 60_000)  # a busy machine may take longer than 60 ms for a few rows
    database = postgres_database
    database.execute(REGISTERED)
    if count:
        database.execute(FILL, count=count)
        database.execute(SET_ASIDE)
    for is_analysed in (False, True):
        if is_analysed:
            database.execute("ANALYZE outbox_message, outbox_delivery")
        with asked(database.engine) as plans, snapshot(database.engine) as connection:
            found = sample(connection)
        assert_it_is_cheap(plans)
        # Each sample reads other pages: one of a thousand is wrong by a fifth, and of such means none is by an eighth.
        several = [found, *(sampled(database) for _ in range(8))]
        assert fmean(each.messages["ready"] for each in several) == pytest.approx(count * 0.6, rel=0.12)
        assert fmean(each.unrouted for each in several) == pytest.approx(count * 0.1, rel=0.12)
        dead = fmean(each.destinations["a"].dead for each in several)
        assert dead == pytest.approx(count * 0.2 / 3, rel=0.12, abs=2)
        assert (found.oldest_due_s > 0) == (count > 0)
        assert found.is_estimate == (count == 200_000)


def test_what_takes_too_long_is_estimated(postgres_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database = postgres_database
    database.execute(REGISTERED)
    database.execute(FILL, count=50_000)
    database.execute(SET_ASIDE)
    age_everything(database, 900)
    monkeypatch.setattr(on_postgres, "BUDGET_MS", 0)
    with asked(database.engine) as plans, snapshot(database.engine) as connection:
        found = sample(connection)
    assert not [plan for plan in plans if plan.indexes & {"outbox_message_ready", "outbox_message_due"}], plans
    assert found.is_estimate
    assert 900 <= found.oldest_due_s < 1000
    assert found.unrouted == pytest.approx(5_000, rel=0.25)
    assert found.destinations["a"].dead == pytest.approx(10_000 / 3, rel=0.25)


def test_a_statement_that_is_cancelled_leaves_the_sample_whole(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_database.execute(REGISTERED)
    postgres_database.execute(FILL, count=50_000)
    monkeypatch.setattr(backlog, "UNROUTED", "SELECT 1 FROM pg_sleep(60)")
    assert sampled(postgres_database).unrouted == pytest.approx(5_000, rel=0.25)


def test_a_cancellation_that_comes_after_its_statement_leaves_the_sample_whole(postgres_database: Database) -> None:
    """The server may notice the end of a statement's time only when the statement has been answered."""
    postgres_database.execute(REGISTERED)
    postgres_database.execute(FILL, count=1_000)
    resets = itertools.count()

    @sa.event.listens_for(postgres_database.engine, "before_cursor_execute", retval=True)
    def cancel_the_second_reset(
        _connection: object, _cursor: object, statement: str, parameters: object, *_: object
    ) -> tuple[str, object]:
        if statement == f"SET LOCAL statement_timeout = {on_postgres.TIMEOUT_MS}" and next(resets) == 1:
            statement = "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)"
        return statement, parameters

    found = sampled(postgres_database)
    assert next(resets) > 2
    assert found.is_estimate
    assert (found.messages["ready"], found.unrouted) == (600, 100)


def test_settled_rows_that_no_vacuum_removed_are_passed_over_once(postgres_database: Database) -> None:
    database = postgres_database
    database.execute(REGISTERED)
    database.execute(FILL, count=100_000)
    floors = Floors()
    sampled(database, floors)
    database.execute("DELETE FROM outbox_message WHERE position < 90000")
    for _ in range(50):
        sampled(database, floors)
    first_ready = database.scalar("SELECT min(position) FROM outbox_message WHERE state = 'ready'")
    assert min(floors.first) == first_ready


def assert_it_is_cheap(plans: list[Plan]) -> None:
    assert not [plan for plan in plans if plan.scanned_tables & {"outbox_message", "outbox_delivery"}], plans
    messages = sum(plan.rows_looked_at_in("outbox_message") for plan in plans)
    deliveries = sum(plan.rows_looked_at_in("outbox_delivery") for plan in plans)
    assert messages <= 80 * PAGES + 3 * OLDEST_OF_EACH_SHARD * SHARDS + EXACT, plans
    assert deliveries <= 80 * PAGES + 65 * SHARDS + EXACT, plans
    assert sum(plan.pages for plan in plans) <= 2 * PAGES + 8_000, plans


@pytest.mark.parametrize("gap", [1, 50])
def test_a_large_sqlite_file_is_estimated_from_few_of_its_rows(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch, gap: int
) -> None:
    count = 40_000
    monkeypatch.setattr(on_sqlite, "COUNTED", 5_000)
    monkeypatch.setattr(on_sqlite, "WINDOWS", 500 * gap)  # with gaps, most windows are empty
    database = sqlite_database
    database.execute(REGISTERED)
    database.execute(FILL_SQLITE, count=count, gap=gap)
    database.execute(SET_ASIDE_SQLITE)
    database.execute(LATER_HALF_SQLITE, half=count * gap // 2)
    found, steps = sampled_in_steps(database)
    assert found.is_estimate
    assert found.messages["ready"] == pytest.approx(count * 0.3, rel=0.25)
    assert found.messages["scheduled"] == pytest.approx(count * 0.4, rel=0.25)
    assert found.unrouted == count * 0.1
    assert found.destinations["a"].waiting["parked"] == pytest.approx(count * 0.1, rel=0.25)
    assert found.destinations["a"].dead == count * 0.1
    if gap == 1:
        monkeypatch.setattr(on_sqlite, "COUNTED", count)
        counted, all_steps = sampled_in_steps(database)
        assert not counted.is_estimate
        assert steps < all_steps / 2


def sampled_in_steps(database: Database) -> tuple[Backlog, int]:
    """Return a sample, and the thousands of steps that SQLite's virtual machine took for it."""
    ticks = itertools.count()
    with snapshot(database.engine) as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(lambda: next(ticks) < 0, 1_000)
        found = sample(connection)
        driver.set_progress_handler(None, 0)
    return found, next(ticks)
