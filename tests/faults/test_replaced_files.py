"""SQLite files that are replaced, removed or damaged while a relay has them open."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import make_url
from support.databases import Database
from support.fleet import Fleet
from support.reckoning import BOTH, prepared, unsettled
from support.waiting import eventually
from support.workload import Workload


def path_of(database: Database) -> Path:
    return Path(make_url(database.url).database or "")


def last_beat(database: Database) -> str:
    return str(database.scalar("SELECT max(last_seen_at) FROM outbox_relay"))


def put_a_copy_in_its_place(database: Database) -> None:
    """Replace the file as a restored backup does: processes that have the old file open keep it."""
    path = path_of(database)
    copy = path.with_name("copy.db")
    database.dispose()  # the test's own connections
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = WAL")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(copy, path)


def test_a_relay_goes_over_to_the_file_that_was_put_in_its_place(sqlite_database: Database, fleet: Fleet) -> None:
    """It used to continue silently with the deleted file, and kept the lock from the standby relays."""
    fleet.configure(sqlite_database.url, destinations=BOTH, beat_s=0.2)
    workload = prepared(sqlite_database, seed=1)
    relay = fleet.start()
    workload.commit(20)
    eventually(lambda: unsettled(sqlite_database) == 0, what="it delivers")
    put_a_copy_in_its_place(sqlite_database)
    workload.commit(20)
    eventually(lambda: unsettled(sqlite_database) == 0, what="it delivers what is in the new file")
    effects = [row.message_id for row in sqlite_database.rows("SELECT message_id FROM effect")]
    assert sorted(effects) == sorted(workload.committed())
    assert relay.output.count("database_lost") == 1


def test_a_relay_reads_from_the_beginning_what_a_backup_put_back_into_its_file(
    sqlite_database: Database, fleet: Fleet
) -> None:
    """The file stays, and its positions begin again where they were: new messages got positions that were passed."""
    fleet.configure(sqlite_database.url, destinations=BOTH, beat_s=0.2)
    workload = prepared(sqlite_database, seed=1)
    fleet.start()
    workload.commit(20)
    eventually(lambda: unsettled(sqlite_database) == 0, what="it delivers")
    path = path_of(sqlite_database)
    with closing(sqlite3.connect(":memory:")) as backup:
        with closing(sqlite3.connect(path)) as file:
            file.backup(backup)
        beaten_at = last_beat(sqlite_database)
        workload.commit(40)
        eventually(lambda: unsettled(sqlite_database) == 0, what="it delivers more")
        eventually(lambda: last_beat(sqlite_database) != beaten_at, what="it beats")
        sqlite_database.dispose()
        with closing(sqlite3.connect(path, timeout=30)) as file:
            backup.backup(file)
    workload.commit(5)
    eventually(
        lambda: unsettled(sqlite_database) == 0, what="it delivers what was committed after the backup came back"
    )
    effects = {row.message_id for row in sqlite_database.rows("SELECT message_id FROM effect")}
    assert effects == set(workload.committed())


def test_a_relay_whose_lock_was_removed_does_not_own_beside_another(sqlite_database: Database, fleet: Fleet) -> None:
    fleet.configure(sqlite_database.url, beat_s=0.2)
    first = fleet.start()
    eventually(lambda: "shards_taken" in first.output)
    path = path_of(sqlite_database)
    path.with_name(path.name + ".relay.lock").unlink()
    second = fleet.start()
    eventually(lambda: (first.output + second.output).count("stands by") == 1, what="one of them stands by")
    assert "removed or replaced" in first.output


def test_a_relay_whose_log_was_removed_saves_it_and_ends_and_the_next_one_delivers(
    sqlite_database: Database, fleet: Fleet
) -> None:
    """It used to continue with the removed log, and saw no message of a process that was started later."""
    fleet.configure(sqlite_database.url, destinations=BOTH, beat_s=0.2)
    workload = prepared(sqlite_database, seed=1)
    first = fleet.start()
    workload.commit(20)
    eventually(lambda: unsettled(sqlite_database) == 0, what="it delivers")
    fleet.hold_path.touch()
    workload.commit(20)  # which only the log has
    sqlite_database.dispose()
    path = path_of(sqlite_database)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    first.wait()
    assert "database_log_removed" in first.output
    fleet.hold_path.unlink()
    fleet.start()
    workload.commit(20)
    eventually(lambda: unsettled(sqlite_database) == 0, what="the next one delivers all")
    effects = [row.message_id for row in sqlite_database.rows("SELECT message_id FROM effect")]
    assert sorted(effects) == sorted(workload.committed())


def test_a_relay_that_finds_another_log_in_place_of_its_own_leaves_it_alone(
    sqlite_database: Database, fleet: Fleet
) -> None:
    """The end of its connection would delete that log, and what others have committed in it."""
    fleet.configure(sqlite_database.url, beat_s=2)  # so long that another process comes first
    workload = prepared(sqlite_database, seed=1)
    first = fleet.start()
    eventually(lambda: "shards_taken" in first.output)
    path = path_of(sqlite_database)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sqlite_database.dispose()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    workload.commit(20)
    sqlite_database.dispose()
    first.wait()
    fleet.start()
    eventually(lambda: unsettled(sqlite_database) == 0, what="the next one delivers them")
    assert {send.id for send in fleet.sends()} == set(workload.committed())
    assert len(workload.committed()) == 20


def written(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has written."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


@contextmanager
def damaged(path: Path, table: str) -> Iterator[None]:
    """Overwrite the first page of a table; repair it at the end."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b", buffering=0) as file:
        content = os.pread(file.fileno(), size, (page - 1) * size)
        os.pwrite(file.fileno(), b"\xde\xad" * (size // 2), (page - 1) * size)
        yield
        os.pwrite(file.fileno(), content, (page - 1) * size)


def test_a_relay_says_once_that_its_file_is_damaged_and_goes_on_when_it_is_repaired(
    sqlite_database: Database, fleet: Fleet
) -> None:
    fleet.configure(sqlite_database.url, beat_s=0.2)
    relay = fleet.start()
    eventually(lambda: "shards_taken" in relay.output)
    path = path_of(sqlite_database)
    with damaged(path, "outbox_message"), closing(sqlite3.connect(path)) as connection:
        eventually(lambda: "database_damaged" in relay.output, what="it says so")
        for _ in range(8):  # each session writes a few times, and there is no other writer
            before = written(connection)
            eventually(lambda before=before: written(connection) != before, what="it tries again, and again")
        assert relay.output.count("database_damaged") == 1
        assert relay.output.count("shards_taken") == 1
        assert "Traceback" not in relay.output
    workload = Workload(sqlite_database.engine, 1)
    workload.commit(20)
    eventually(lambda: unsettled(sqlite_database) == 0, what="it delivers")
    assert relay.output.count("database_back") == 1


def test_a_relay_that_is_started_on_a_damaged_file_says_so_in_a_sentence(
    sqlite_database: Database, fleet: Fleet
) -> None:
    fleet.configure(sqlite_database.url)
    with damaged(path_of(sqlite_database), "outbox_destination"):
        relay = fleet.start()
        relay.wait()
    assert "malformed" in relay.output
    assert "Traceback" not in relay.output


def test_a_relay_waits_for_a_lock_file_that_it_may_open(sqlite_database: Database, fleet: Fleet) -> None:
    fleet.configure(sqlite_database.url, beat_s=0.2)
    path = path_of(sqlite_database)
    lock = path.with_name(path.name + ".relay.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    relay = fleet.start()
    eventually(lambda: "database_lost" in relay.output, what="it says why it waits")
    assert "cannot be locked" in relay.output
    assert "Traceback" not in relay.output
    lock.rmdir()
    eventually(lambda: "shards_taken" in relay.output, what="it begins by itself")
