"""SQLite files that are replaced while a relay has them open: by a backup, or by deleting the lock file."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url
from support.databases import Database
from support.fleet import Fleet
from support.reckoning import BOTH, prepared, unsettled
from support.waiting import eventually


def path_of(database: Database) -> Path:
    return Path(make_url(database.url).database or "")


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


def test_a_relay_whose_lock_was_removed_does_not_own_beside_another(sqlite_database: Database, fleet: Fleet) -> None:
    fleet.configure(sqlite_database.url, beat_s=0.2)
    first = fleet.start()
    eventually(lambda: "shards_taken" in first.output)
    path = path_of(sqlite_database)
    path.with_name(path.name + ".relay.lock").unlink()
    second = fleet.start()
    eventually(lambda: (first.output + second.output).count("stands by") == 1, what="one of them stands by")
    assert "removed or replaced" in first.output
