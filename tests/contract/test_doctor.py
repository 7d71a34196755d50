"""The doctor finds what will cause trouble, says why it matters and what to do, and is quiet when all is well."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool
from support.databases import Database
from support.desk import ALL, Desk
from support.postgres import PostgresServer
from support.scene import Scene, Taker, rejecting, to
from support.waiting import eventually, eventually_async

from outbox.tables import SHARD_COUNT
from relay import Settings
from relay.admin.destinations.listing import pause
from relay.admin.doctor import Finding, examine
from relay.admin.doctor.destinations import configured
from relay.databases.database import Database as Address
from relay.databases.migrations import upgrade
from relay.databases.postgresql.doctor import server as on_postgres
from relay.databases.postgresql.doctor.server import DEAD_ROWS
from relay.databases.sqlite.doctor import disk, journal, version


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    with Desk(database) as desk:
        yield desk


def examined(database: Database, *, lease_s: float = 15, older_than_s: float = 300) -> dict[str, Finding]:
    """Return check → its finding; of several, the worst."""
    engine = Address.parse(database.url).engine()
    try:
        found = examine(engine, lease_s=lease_s, older_than_s=older_than_s)
    finally:
        engine.dispose()
    worst = sorted(found, key=lambda each: ("ok", "note", "bad").index(each.severity))
    return {each.check: each for each in worst}


def unwell(found: dict[str, Finding]) -> dict[str, str]:
    return {check: each.severity for check, each in found.items() if each.severity != "ok"}


async def test_an_outbox_that_is_well_has_no_findings(scene: Scene) -> None:
    async with scene.relay({"a": Taker()}) as relay:
        scene.emit(5)
        await scene.becomes(5, 0, 0, 0)
        await relay.drain()
        # The relay reports what it owns with its next beat.
        await eventually_async(lambda: sum(len(each.shards) for each in scene.status.relays) == SHARD_COUNT)
        found = examined(scene.database)
    # The test server does not wait for its disk, and allows prepared transactions.
    assert unwell(found).keys() <= {"durability", "wake-up"}


def test_every_finding_says_what_why_and_what_to_do(scene: Scene) -> None:
    for each in examined(scene.database).values():
        assert each.what
        if each.severity != "ok":
            assert each.why
            assert each.do


def test_a_database_without_an_outbox_is_told_to_upgrade(empty_postgres: Database) -> None:
    found = examined(empty_postgres)
    assert found["schema"].severity == "bad"
    assert "outbox db upgrade" in found["schema"].do
    assert "relays" not in found


def test_a_schema_of_a_later_release_is_not_told_to_upgrade_itself(database: Database) -> None:
    database.execute("UPDATE outbox_meta SET schema_version = 9, oldest_release = '99.0'")
    finding = examined(database)["schema"]
    assert "needs release 99.0 or newer" in finding.what
    assert finding.do == "use release 99.0 or newer, from the source that this one came from"


def test_shards_that_no_relay_owns_are_counted(desk: Desk) -> None:
    assert examined(desk.database)["relays"].what == "no relay is alive"
    session = desk.open()
    session.ownership.beat([], 0)
    assert "64 of 64 shards" in examined(desk.database)["relays"].what
    session.ownership.take([0, 1, 2])
    session.ownership.beat([0, 1, 2], 61)
    assert "61 of 64 shards" in examined(desk.database)["relays"].what
    session.ownership.take(ALL)
    session.ownership.beat(list(ALL), 0)
    assert examined(desk.database)["relays"].severity == "ok"


def test_shards_without_a_row_are_counted_and_restored_by_the_remedy(desk: Desk) -> None:
    desk.database.execute("DELETE FROM outbox_shard WHERE shard IN (5, 63)")
    finding = examined(desk.database)["shards"]
    assert (finding.severity, finding.what) == ("bad", "2 shards without a row in outbox_shard")
    desk.database.execute(finding.do.partition(": ")[2])
    assert examined(desk.database)["shards"].severity == "ok"


async def test_late_dead_and_unrouted_messages_are_named(scene: Scene) -> None:
    scene.emit(1, ordering_key="k")
    scene.emit(2, type="debug.noise")
    await scene.drain({"a": to(Taker(rejecting(0)), events=["page.*"])})
    scene.emit(1)
    found = examined(scene.database, older_than_s=0)
    assert {"oldest message", "dead letters", "unrouted"} <= {c for c, s in unwell(found).items() if s == "bad"}
    assert "debug.noise (2)" in found["unrouted"].what
    assert "outbox dead list" in found["dead letters"].do
    assert unwell(examined(scene.database)).get("oldest message") is None


async def test_a_destination_that_is_not_healthy_is_named_with_its_reason(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    pause(scene.database.engine, "a", reason="a release")
    paused = examined(scene.database)["destinations"]
    assert (paused.severity, paused.why) == ("note", "an operator paused it")
    assert paused.what.startswith("a is paused (a release")
    scene.database.execute("UPDATE outbox_destination SET paused_by = 'failure', reason = 'refused'")
    assert examined(scene.database)["destinations"].what.startswith("a is down (refused)")
    scene.database.execute("UPDATE outbox_destination SET state = 'off', paused_by = 'failure', reason = 'HTTP 410'")
    found = examined(scene.database)["destinations"]
    assert (found.severity, "outbox resume a" in found.do) == ("bad", True)


async def test_a_healthy_destination_at_which_messages_fail_is_named_with_their_reason(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    scene.database.execute("UPDATE outbox_destination SET note = '2 messages failing: connection refused'")
    found = examined(scene.database)["destinations"]
    assert (found.severity, found.do) == ("note", "`outbox destinations test a`")
    assert found.what == "a is healthy, with 2 messages failing: connection refused; waiting for it: 0"


async def test_a_share_of_messages_that_expire_is_noted(scene: Scene) -> None:
    scene.emit(3)
    await scene.drain({"a": Taker()})
    assert examined(scene.database)["expired"].severity == "ok"
    scene.emit(1, due_at=datetime(2020, 1, 1, tzinfo=UTC), expires_in=60)
    await scene.drain({"a": Taker()})
    found = examined(scene.database)["expired"]
    assert (found.severity, "1 message expired" in found.what, "25%" in found.what) == ("note", True, True)
    assert "--state expired" in found.do


def test_an_expiry_that_is_shorter_than_a_normal_wait_is_noted(scene: Scene) -> None:
    destinations = {
        "short": to(Taker(), expires_in="10s", backoff_s=20, backoff_max_s=60),
        "fits": to(Taker(), expires_in="1m", backoff_s=20, backoff_max_s=60),
        "never": to(Taker()),
    }
    found = configured(Settings(destinations=destinations, lease_s=15))
    assert [(each.check, each.severity, each.do) for each in found] == [
        ("destination short", "note", "raise expires_in, or lower backoff_s"),
        ("destination short", "note", "raise expires_in, or lower lease_s"),
    ]


@pytest.fixture
def long_transaction(postgres_database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("relay.databases.postgresql.doctor.server.LONG_S", 0.0)
    with postgres_database.engine.connect() as connection:
        connection.exec_driver_sql("SELECT pg_current_xact_id()")
        yield


@pytest.mark.usefixtures("long_transaction")
def test_a_long_transaction_is_named_with_its_pid(postgres_database: Database) -> None:
    found = examined(postgres_database)["long transactions"]
    assert found.severity == "note"
    assert "idle in transaction" in found.what
    assert "pg_terminate_backend" in found.do


def test_a_prepared_transaction_is_named_in_its_own_database(
    postgres_database: Database, empty_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.databases.postgresql.doctor.server.LONG_S", 0.0)
    with postgres_database.engine.connect() as connection:
        transaction = connection.begin_twophase("forgotten")
        connection.exec_driver_sql("SELECT pg_current_xact_id()")
        transaction.prepare()
        try:
            found, elsewhere = (examined(d)["long transactions"] for d in (postgres_database, empty_postgres))
        finally:
            transaction.rollback()
    assert "prepared transaction forgotten" in found.what
    assert "ROLLBACK PREPARED" in found.do
    assert "forgotten" not in elsewhere.what


def test_a_missing_partition_and_a_silent_wake_up_are_noted(postgres_database: Database) -> None:
    database = postgres_database
    database.execute("DO $$ BEGIN PERFORM setval('outbox_wake', 0); END $$")
    tomorrow = database.scalar("SELECT to_char((clock_timestamp() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD')")
    database.execute(f"DROP TABLE outbox_history_{tomorrow}")
    found = unwell(examined(database))
    assert (found["history"], found["wake-up"]) == ("note", "note")


def test_dead_rows_that_vacuum_cannot_remove_are_noted_with_the_last_vacuum(postgres_database: Database) -> None:
    database = postgres_database
    database.execute("ALTER TABLE outbox_relay SET (autovacuum_enabled = off)")
    # A server process reports its statistics when it ends, or some time later; the pool would keep it alive.
    passing = database.sync_engine(poolclass=NullPool)
    with passing.connect() as old:
        old.exec_driver_sql("SELECT pg_current_xact_id()")  # holds back the horizon, as a forgotten transaction does
        with passing.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO outbox_relay (id, release, shards) SELECT n, '0', '[]' FROM generate_series(0, %s) AS n",
                (DEAD_ROWS,),
            )
            connection.exec_driver_sql("DELETE FROM outbox_relay")
        eventually(lambda: "outbox_relay: 100,001 dead rows, never vacuumed" in examined(database)["bloat"].what)
        with passing.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM outbox_relay")
        eventually(lambda: "last vacuum 20" in examined(database)["bloat"].what)
    assert examined(database)["bloat"].severity == "note"
    found = examined(database)["autovacuum"]
    assert (found.severity, found.what) == ("bad", "off for outbox_relay")


def test_a_pooler_in_transaction_mode_is_found_out(postgres_database: Database, monkeypatch: Any) -> None:
    """With such a pooler, one backend serves two connections that are open at once."""
    engine = Address.parse(postgres_database.url).engine()
    try:
        with engine.connect() as one, engine.connect() as other:
            assert on_postgres._way(one, other).severity == "ok"
            assert on_postgres._way(one, one).severity == "bad"
    finally:
        engine.dispose()


def test_a_servers_unsafe_settings_are_named(private_postgres: Callable[..., PostgresServer]) -> None:
    server = private_postgres({"fsync": "on", "full_page_writes": "on", "max_prepared_transactions": 0})
    database = Database("postgres", server.url())
    upgrade(database.url)
    assert unwell(examined(database)) == {"relays": "bad"}
    server.settings.update(synchronous_commit="off", max_prepared_transactions=5, track_counts="off")
    server.restart()
    found = examined(database)
    assert (found["durability"].severity, found["durability"].what) == ("note", "synchronous_commit is off")
    assert (found["wake-up"].severity, found["wake-up"].what) == ("note", "prepared transactions are enabled here")
    assert (found["autovacuum"].severity, found["autovacuum"].what) == ("bad", "track_counts off")
    server.settings.update(fsync="off", full_page_writes="off", autovacuum="off", track_counts="on")
    server.restart()
    found = examined(database)
    assert (found["durability"].severity, found["durability"].what) == ("bad", "fsync and full_page_writes off")
    assert (found["autovacuum"].severity, found["autovacuum"].what) == ("bad", "autovacuum off")


def test_a_standby_is_named(private_postgres: Callable[..., PostgresServer]) -> None:
    primary = private_postgres()
    upgrade(primary.url())
    standby = private_postgres(standby_of=primary)
    assert examined(Database("postgres", primary.url()))["server"].severity == "ok"
    found = examined(Database("postgres", standby.url()))["server"]
    assert (found.severity, found.what) == ("bad", "it is a standby")


def test_a_lease_that_the_server_refuses_and_a_server_without_one_are_named(postgres_database: Database) -> None:
    found = examined(postgres_database, lease_s=1e7)["lease"]  # longer than its idle_session_timeout goes
    assert found.severity == "bad"
    assert "idle_session_timeout is not accepted" in found.what
    assert [on_postgres.version(n, "").severity for n in (130020, 140000)] == ["bad", "ok"]


def test_an_old_sqlite_and_a_journal_without_a_log_are_named(sqlite_database: Database) -> None:
    assert version((3, 37, 2)).severity == "bad"
    assert version((3, 38, 0)).severity == "ok"
    assert journal("wal").severity == "ok"
    sqlite_database.engine.dispose()
    with sqlite_database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = delete").close()
    found = examined(sqlite_database)["journal mode"]
    assert (found.what, found.severity) == ("delete", "bad")


def test_a_disk_of_an_sqlite_file_that_takes_no_writes_is_named(sqlite_database: Database, tmp_path: Path) -> None:
    """The file can still be read, and a relay that waits for the disk is not listed: its row cannot be written."""
    assert examined(sqlite_database)["disk"].severity == "ok"
    full = disk(tmp_path, is_read_only=False, free_bytes=4096)
    assert (full.severity, full.what) == ("bad", f"the disk of {tmp_path} has 4,096 bytes left")
    read_only = disk(tmp_path, is_read_only=True, free_bytes=1 << 30)
    assert (read_only.severity, read_only.what) == ("bad", f"the disk of {tmp_path} is read-only")
    assert "if one runs, its log says what it waits for" in examined(sqlite_database)["relays"].do


def test_a_message_that_is_not_due_yet_is_not_late(scene: Scene) -> None:
    scene.emit(1, delay=timedelta(hours=1))
    assert examined(scene.database, older_than_s=0)["oldest message"].severity == "ok"
