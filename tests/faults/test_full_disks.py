"""A full database disk: workers get an error, relays wait and log it once, and nothing is lost or sent twice."""

import os
from collections import Counter

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from support import disks
from support.databases import Database
from support.reckoning import unsettled
from support.waiting import eventually

from outbox import emit
from relay.databases.migrations import upgrade

LARGE = 180_000  # incompressible bytes: too many for the room left on any page


@pytest.fixture(params=disks.kinds(), ids=lambda kind: kind.__name__)
def disk(request):
    disk = request.param()
    yield disk
    disk.close()


@pytest.fixture
def server(disk, private_postgres):
    server = private_postgres({"autovacuum": "off", "jit": "off"}, home=disk.home)
    upgrade(server.url())
    yield server
    server.remove()  # before the fixture closes its disk


@pytest.fixture
def database(server):
    database = Database("postgres", server.url())
    database.execute("CREATE TABLE result (n integer PRIMARY KEY, pad text)")
    yield database
    database.dispose()


def commit(database: Database, *numbers: int, size: int = LARGE) -> set[str]:
    """Commit a result and a message for each number, one transaction each."""
    ids = set()
    for n in numbers:
        with database.engine.begin() as connection:
            connection.execute(text("INSERT INTO result VALUES (:n, 'done')"), {"n": n})
            ids.add(emit(connection, "extraction.completed", {"n": n, "pad": os.urandom(size // 2).hex()}))
    return ids


def results(database: Database) -> set[int]:
    return {row.n for row in database.rows("SELECT n FROM result")}


def sent_times(fleet) -> Counter[str]:
    return Counter(send.id for send in fleet.sends())


def complaints(relay) -> list[str]:
    return [line for line in relay.output.splitlines() if "could not extend" in line or "is full" in line]


def test_with_a_full_disk_workers_are_told_and_the_relay_waits_for_room(server, database, disk, fleet):
    fleet.configure(database.url, beat_s=0.2)
    relay = fleet.start()
    ids = commit(database, *range(disk.reached_bytes // LARGE + 5))
    eventually(lambda: unsettled(database) == 0, deadline_s=60, what="the tables are as large as they may be")
    fleet.hold_path.touch()
    ids |= commit(database, 1000, 1001, 1002)
    eventually(lambda: set(sent_times(fleet)) == ids, what="three are under way")
    disk.fill(server)
    with pytest.raises(DBAPIError, match="could not extend file"):
        commit(database, 2000)
    assert 2000 not in results(database)
    fleet.hold_path.unlink()
    eventually(lambda: complaints(relay), what="the relay says why it waits")
    opened = "SELECT last_value FROM outbox_relay_number_seq"
    before = database.scalar(opened)
    eventually(lambda: database.scalar(opened) > before + 1, what="it has tried again, and again")
    assert len(complaints(relay)) == 1
    assert "database_back" not in relay.output
    disk.make_room(server)
    eventually(lambda: unsettled(database) == 0, deadline_s=30, what="everything is settled")
    ids |= commit(database, 3000)
    eventually(lambda: unsettled(database) == 0 and set(sent_times(fleet)) == ids, deadline_s=30)
    assert set(sent_times(fleet).values()) == {1}
    assert len(complaints(relay)) == 1
    assert relay.output.count("database_back") == 1


def test_with_a_full_sqlite_file_workers_are_told_and_the_relay_waits_for_room(sqlite_database, fleet, tmp_path):
    full = tmp_path / "full"
    fleet.configure(sqlite_database.url, destinations={"log": {"listener": "support.small_file:record"}}, beat_s=0.2)
    relay = fleet.start(env={"RECORD_FULL_PATH": str(full)})
    event.listen(sqlite_database.engine, "begin", allow_no_more_pages_while(full))
    sqlite_database.execute("CREATE TABLE result (n integer PRIMARY KEY, pad text)")
    ids = commit(sqlite_database, *range(10), size=100)
    eventually(lambda: unsettled(sqlite_database) == 0, deadline_s=30)
    fleet.hold_path.touch()
    ids |= commit(sqlite_database, 1000, 1001, 1002)
    eventually(lambda: set(sent_times(fleet)) == ids, what="three are under way")
    full.touch()
    with pytest.raises(DBAPIError, match="database or disk is full"):
        commit(sqlite_database, 2000)
    assert 2000 not in results(sqlite_database)
    fleet.hold_path.unlink()
    eventually(lambda: complaints(relay), what="the relay says why it waits")
    before = full.stat().st_size
    eventually(lambda: full.stat().st_size > before + 3, what="it has tried again, and again")
    assert len(complaints(relay)) == 1
    assert "database_back" not in relay.output
    full.unlink()
    eventually(lambda: unsettled(sqlite_database) == 0, deadline_s=30, what="everything is settled")
    ids |= commit(sqlite_database, 3000)
    eventually(lambda: unsettled(sqlite_database) == 0 and set(sent_times(fleet)) == ids, deadline_s=30)
    assert set(sent_times(fleet).values()) == {1}
    assert len(complaints(relay)) == 1
    assert relay.output.count("database_back") == 1


def allow_no_more_pages_while(full):
    """Permit no more pages, as `support.small_file` does for the relay."""

    def limit(connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if full.exists() else 2**32 - 2}")

    return limit
