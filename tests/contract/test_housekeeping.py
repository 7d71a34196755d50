"""The periodic work: partitions before they are needed, retention that never touches what is not delivered."""

from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.databases import Database
from support.housekeeping import housekeeping_with
from support.scene import Scene, Taker, rejecting, to
from support.waiting import eventually

from relay.settings import Settings


class House:
    """A database and its periodic work, each job run when a test says so."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.scene = Scene(database)

    def age(self, table: str, column: str, days: int) -> None:
        """Make every row of this table older."""
        older = f"strftime('%Y-%m-%d %H:%M:%f', {column}, '-{days} days')"
        if self.database.kind == "postgres":
            older = f"{column} - interval '{days} days'"
            self.database.execute(f"SELECT outbox_add_partition((now() AT TIME ZONE 'UTC')::date - {days})")
        self.database.execute(f"UPDATE {table} SET {column} = {older}")

    def count(self, table: str) -> int:
        return self.database.scalar(f"SELECT count(*) FROM {table}")


@pytest.fixture(autouse=True)
def no_midnight() -> None:
    """Begin no test shortly before midnight: the names of partitions are dates."""
    eventually(lambda: datetime.now(UTC).time() < time(23, 58), deadline_s=180, what="midnight is over")


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


def run_once(house: House, **options: Any) -> None:
    """Run each job once: the first round is at the start, and `stop` waits for it."""
    housekeeping = housekeeping_with(Settings(database_url=house.database.url, health_port=0, **options))
    started = datetime.now(UTC)
    housekeeping.start()
    later = started + timedelta(seconds=30)
    jobs = [job for job in housekeeping._scheduler.get_jobs() if job.trigger.interval >= timedelta(minutes=1)]
    eventually(lambda: all(housekeeping._scheduler.get_job(job.id).next_run_time > later for job in jobs))
    housekeeping.stop()


async def test_what_was_delivered_is_kept_for_the_retention(house: House) -> None:
    house.scene.emit(5)
    await house.scene.drain({"a": Taker()})
    house.age("outbox_history", "delivered_at", 5)
    house.scene.emit(3)
    await house.scene.drain({"a": Taker()})
    run_once(house, retention_days=7)
    assert house.count("outbox_history") == 8
    run_once(house, retention_days=3)
    assert house.count("outbox_history") == 3


class TenDaysAhead(datetime):
    """A host's clock that is wrong."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + timedelta(days=10)


async def test_what_is_old_is_so_by_the_clock_of_the_database(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay whose host was days ahead once detached today's partition: no relay could settle until midnight."""
    house.scene.emit(5)
    await house.scene.drain({"a": Taker()})
    house.database.execute("INSERT INTO inbox_message (listener, message_id) VALUES ('a', 'of another broker')")
    house.database.execute("INSERT INTO outbox_relay (id, release) VALUES ('alive', '0.1.0')")
    monkeypatch.setattr("relay.admin.housekeeping.datetime", TenDaysAhead)
    housekeeping = housekeeping_with(Settings(database_url=house.database.url, health_port=0, inbox_retention_days=7))
    housekeeping.delete_history()
    if house.database.kind == "postgres":
        housekeeping._run(housekeeping.add_partitions)
        assert (
            house.database.scalar("SELECT count(*) FROM pg_inherits WHERE inhparent = 'outbox_history'::regclass") == 4
        )
    housekeeping._run(housekeeping.forget_inbox_marks)
    housekeeping._run(housekeeping.remove_traces)
    housekeeping._engine.dispose()
    assert (house.count("outbox_history"), house.count("inbox_message")) == (5, 1)
    assert house.database.scalar("SELECT count(*) FROM outbox_relay WHERE id = 'alive'") == 1
    house.scene.emit(1)
    assert await house.scene.drain({"a": Taker()}) == 1


async def test_retention_never_touches_what_is_not_delivered(house: House) -> None:
    taker = Taker(rejecting(0))
    house.scene.emit(2, ordering_key="k")
    async with house.scene.relay({"a": to(taker, events=["page.read"])}):
        await house.scene.becomes(0, 1, 1, 0)
        house.scene.emit(1, type="book.read")
        house.scene.emit(1, delay=3600)
        await house.scene.becomes(0, 2, 1, 1)
    house.age("outbox_message", "created_at", 400)
    house.age("outbox_delivery", "changed_at", 400)
    run_once(house, retention_days=1, inbox_retention_days=1)
    assert house.scene.account == (0, 2, 1, 1)


async def test_an_inbox_mark_outlives_its_message_wherever_that_is(house: House) -> None:
    house.scene.emit(3)
    await house.scene.drain({"a": Taker()})
    house.scene.emit(2)
    ids = [
        str(r.id) for r in house.database.rows("SELECT id FROM outbox_history UNION ALL SELECT id FROM outbox_message")
    ]
    for message_id in [*ids, "0197c0de-0000-7000-8000-000000000000", "from another broker"]:
        house.database.execute("INSERT INTO inbox_message (listener, message_id) VALUES ('a', :id)", id=message_id)
    run_once(house, inbox_retention_days=5, retention_days=30)
    assert house.count("inbox_message") == 7
    house.age("inbox_message", "done_at", 6)
    run_once(house, inbox_retention_days=5, retention_days=30)
    kept = [r.message_id for r in house.database.rows("SELECT message_id FROM inbox_message")]
    assert sorted(kept) == sorted(ids)


def test_traces_of_relays_that_are_gone_are_removed_and_living_ones_stay(house: House) -> None:
    for name in ("gone", "alive"):
        house.database.execute("INSERT INTO outbox_relay (id, release) VALUES (:name, '0.1.0')", name=name)
    house.database.execute("UPDATE outbox_relay SET last_seen_at = '2020-01-01 00:00:00' WHERE id = 'gone'")
    run_once(house)
    assert [r.id for r in house.database.rows("SELECT id FROM outbox_relay")] == ["alive"]


def test_a_job_that_fails_is_logged_once_for_each_cause_until_it_works_again(house: House) -> None:
    """An outage of hours used to fill the log with one line a minute for each job."""
    housekeeping = housekeeping_with(Settings(database_url=house.database.url, health_port=0))
    away, back = (
        f"ALTER TABLE {one} RENAME TO {other}" for one, other in [("outbox_relay", "r"), ("r", "outbox_relay")]
    )
    with capture_logs() as said:
        for _ in range(2):
            house.database.execute(away)
            for _ in range(3):
                housekeeping._run(housekeeping.remove_traces)
            house.database.execute(back)
            housekeeping._run(housekeeping.remove_traces)
    housekeeping._engine.dispose()
    assert [each["event"] for each in said] == ["housekeeping_failed"] * 2


def test_a_sample_that_waited_too_long_for_the_only_connection_is_a_gap(house: House) -> None:
    """While SQLite's file was locked, it used to be logged with a traceback every 15 seconds."""
    housekeeping = housekeeping_with(Settings(database_url=house.database.url, health_port=0))
    housekeeping._engine.pool._timeout = 0.01  # type: ignore[attr-defined]
    with capture_logs() as said, housekeeping._engine.connect():
        housekeeping.keep_sample()
        housekeeping.sample_backlog()
        housekeeping._run(housekeeping.remove_traces)
    housekeeping._engine.dispose()
    assert [each["event"] for each in said] == ["sample_failed", "sample_failed", "housekeeping_failed"]


def test_a_frozen_relay_that_holds_its_locks_keeps_its_trace_by_which_a_peer_ends_it(
    postgres_database: Database,
) -> None:
    house = House(postgres_database)
    with postgres_database.engine.connect() as frozen:
        frozen.exec_driver_sql("SELECT pg_advisory_lock(1, 64)")
        frozen.exec_driver_sql(
            "INSERT INTO outbox_relay (id, release, backend_pid, last_seen_at) "
            "VALUES ('frozen', '0.1.0', pg_backend_pid(), '2020-01-01')"
        )
        frozen.commit()
        run_once(house)
        assert house.count("outbox_relay") == 1
        frozen.invalidate()  # its session ends
    eventually(lambda: run_once(house) or house.count("outbox_relay") == 0)


def test_however_much_is_too_old_one_round_deletes_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch every ten minutes was less than a busy listener leaves behind."""
    monkeypatch.setattr("relay.admin.housekeeping.BATCH", 4)
    for n in range(11):
        house.database.execute("INSERT INTO inbox_message (listener, message_id) VALUES ('a', :id)", id=f"m-{n}")
    house.age("inbox_message", "done_at", 6)
    housekeeping = housekeeping_with(Settings(database_url=house.database.url, health_port=0, inbox_retention_days=5))
    housekeeping._run(housekeeping.forget_inbox_marks)
    housekeeping._engine.dispose()
    assert house.count("inbox_message") == 0


def partitions(database: Database) -> list[str]:
    rows = database.rows(
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'outbox_history'::regclass ORDER BY 1"
    )
    return [r.relname for r in rows]


def days(*offsets: int) -> list[str]:
    today = datetime.now(UTC).date()
    return [f"outbox_history_{today + timedelta(days=offset):%Y%m%d}" for offset in offsets]


def test_partitions_are_made_three_days_ahead(postgres_database: Database) -> None:
    house = House(postgres_database)
    for name in partitions(postgres_database):
        postgres_database.execute(f"DROP TABLE {name}")
    run_once(house)
    assert partitions(postgres_database) == days(0, 1, 2, 3)
    run_once(house)
    assert partitions(postgres_database) == days(0, 1, 2, 3)


def test_partitions_beyond_the_retention_are_removed_and_no_other(postgres_database: Database) -> None:
    house = House(postgres_database)
    for offset in range(-12, 0):
        postgres_database.execute(f"SELECT outbox_add_partition((now() AT TIME ZONE 'UTC')::date + {offset})")
    run_once(house, retention_days=7)
    assert partitions(postgres_database) == days(*range(-8, 4))


def test_a_reader_of_the_history_delays_its_retention_and_does_not_end_it(postgres_database: Database) -> None:
    """Detaching waits for readers, but not for long, and may be left half done; the next round goes on from there."""
    house = House(postgres_database)
    for offset in (-31, -30):
        postgres_database.execute(f"SELECT outbox_add_partition((now() AT TIME ZONE 'UTC')::date + {offset})")
    with postgres_database.engine.connect() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM outbox_history")
        run_once(house, retention_days=7)
        assert days(-30)[0] in partitions(postgres_database)
        reader.rollback()
    run_once(house, retention_days=7)
    assert partitions(postgres_database) == days(0, 1, 2, 3)


async def test_todays_partition_is_attached_again_after_it_was_detached(postgres_database: Database) -> None:
    """Its name was taken, so it was not created, and no message could be settled."""
    scene = Scene(postgres_database)
    postgres_database.execute(f"ALTER TABLE outbox_history DETACH PARTITION {days(0)[0]}")
    scene.emit(3)
    assert await scene.drain({"a": Taker()}) == 3
    assert partitions(postgres_database) == days(0, 1, 2, 3)


def test_a_partition_that_was_detached_and_not_dropped_is_dropped(postgres_database: Database) -> None:
    """A crash between the two leaves such a partition."""
    (name,) = days(-30)
    postgres_database.execute("SELECT outbox_add_partition((now() AT TIME ZONE 'UTC')::date - 30)")
    postgres_database.execute(f"ALTER TABLE outbox_history DETACH PARTITION {name}")
    run_once(House(postgres_database), retention_days=7)
    assert postgres_database.scalar("SELECT to_regclass(:name)", name=name) is None
