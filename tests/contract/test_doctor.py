"""The doctor finds what will bite, says why it matters and what to do, and is quiet when all is well."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from support.databases import Database
from support.scene import Scene, Taker, rejecting, to
from support.waiting import eventually_async

from outbox.tables import SHARD_COUNT
from relay.database import Database as Address
from relay.operations.destinations import pause
from relay.operations.doctor import Finding, examine
from relay.operations.doctor.sqlite import journal, version


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


def examined(database: Database, *, older_than_s: float = 300) -> dict[str, Finding]:
    """Check → what it found; of several, the worst."""
    engine = Address.parse(database.url).engine()
    try:
        found = examine(engine, lease_s=15, older_than_s=older_than_s)
    finally:
        engine.dispose()
    worst = sorted(found, key=lambda each: ("ok", "note", "bad").index(each.severity))
    return {each.check: each for each in worst}


def unwell(found: dict[str, Finding]) -> dict[str, str]:
    return {check: each.severity for check, each in found.items() if each.severity != "ok"}


async def test_of_an_outbox_that_is_well_nothing_is_said(scene: Scene) -> None:
    async with scene.relay({"a": Taker()}) as relay:
        scene.emit(5)
        await scene.becomes(5, 0, 0, 0)
        await relay.drain()
        # What it owns, it says with its next beat.
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


async def test_without_a_relay_nobody_owns_the_shards(scene: Scene) -> None:
    assert (examined(scene.database)["relays"].severity) == "bad"
    async with scene.relay({"a": Taker()}) as relay:
        await relay.drain()
        scene.database.execute("UPDATE outbox_relay SET shards = '[0, 1, 2]'")
    scene.database.execute("INSERT INTO outbox_relay (id, release, shards) VALUES ('r', '0.1.0', '[0, 1, 2]')")
    assert "61 of 64 shards" in examined(scene.database)["relays"].what


async def test_what_waits_too_long_what_died_and_what_nobody_wants_is_named(scene: Scene) -> None:
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
    assert examined(scene.database)["destinations"].severity == "note"
    assert "a release" in examined(scene.database)["destinations"].what
    scene.database.execute("UPDATE outbox_destination SET state = 'off', paused_by = 'failure', reason = 'HTTP 410'")
    found = examined(scene.database)["destinations"]
    assert (found.severity, "outbox resume a" in found.do) == ("bad", True)


@pytest.fixture
def long_transaction(postgres_database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("relay.operations.doctor.postgres.LONG_S", 0.0)
    with postgres_database.engine.connect() as connection:
        connection.exec_driver_sql("SELECT pg_current_xact_id()")
        yield


@pytest.mark.usefixtures("long_transaction")
def test_a_long_transaction_is_named_with_its_pid(postgres_database: Database) -> None:
    found = examined(postgres_database)["long transactions"]
    assert found.severity == "note"
    assert "idle in transaction" in found.what
    assert "pg_terminate_backend" in found.do


def test_a_missing_partition_a_silent_wake_up_and_bloat_are_noted(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres_database
    database.execute("DO $$ BEGIN PERFORM setval('outbox_wake', 0); END $$")
    tomorrow = database.scalar("SELECT to_char((clock_timestamp() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD')")
    database.execute(f"DROP TABLE outbox_history_{tomorrow}")
    monkeypatch.setattr("relay.operations.doctor.postgres.DEAD_ROWS", -1)
    monkeypatch.setattr("relay.operations.doctor.postgres.BLOAT", _without_the_second_condition())
    found = unwell(examined(database))
    assert (found["history"], found["wake-up"], found["bloat"]) == ("note", "note", "note")


def _without_the_second_condition() -> str:
    from relay.operations.doctor.postgres import BLOAT

    return BLOAT.replace("AND s.n_dead_tup > s.n_live_tup", "")


def test_a_pooler_in_transaction_mode_is_found_out(postgres_database: Database, monkeypatch: Any) -> None:
    """What such a pooler does: two connections that are open at once are served by one backend."""
    from relay.operations.doctor import postgres

    engine = Address.parse(postgres_database.url).engine()
    try:
        with engine.connect() as one, engine.connect() as other:
            assert postgres._way(one, other).severity == "ok"
            assert postgres._way(one, one).severity == "bad"
    finally:
        engine.dispose()


def test_a_server_that_may_lose_commits_is_named(postgres_database: Database) -> None:
    name = postgres_database.scalar("SELECT current_database()")
    postgres_database.engine.dispose()
    with postgres_database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    assert "off" in examined(postgres_database)["durability"].what


def test_an_old_sqlite_and_a_journal_without_a_log_are_named(sqlite_database: Database) -> None:
    assert version((3, 37, 2)).severity == "bad"
    assert version((3, 38, 0)).severity == "ok"
    assert journal("wal").severity == "ok"
    sqlite_database.engine.dispose()
    with sqlite_database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = delete").close()
    found = examined(sqlite_database)["journal mode"]
    assert (found.what, found.severity) == ("delete", "bad")


def test_a_message_that_is_not_due_yet_is_not_late(scene: Scene) -> None:
    scene.emit(1, delay=timedelta(hours=1))
    assert examined(scene.database, older_than_s=0)["oldest message"].severity == "ok"
