"""Workers that prepare their transactions, and workers that do not wait for the disk."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import TwoPhaseTransaction, text
from sqlalchemy.exc import DBAPIError
from support.databases import Database
from support.fleet import shard_counts
from support.reckoning import unsettled
from support.waiting import eventually

from outbox import emit
from relay.databases.migrations import upgrade
from relay.owner.shards import AFTER_RESTART_S

RESULT = "CREATE TABLE result (n integer PRIMARY KEY, message_id text NOT NULL)"
ASLEEP = 2


def start_relay(fleet, database: Database, **settings):
    fleet.configure(database.url, **{"beat_s": 0.2, "quiet_s": 0.1, **settings})
    relay = fleet.start()
    eventually(lambda: shard_counts(database.url).get(relay.pid) == 64)
    return relay


def write(connection, n: int) -> str:
    message_id = emit(connection, "extraction.completed", {"n": n})
    connection.execute(text("INSERT INTO result VALUES (:n, :id)"), {"n": n, "id": message_id})
    return message_id


def commit(database: Database, n: int) -> str:
    with database.engine.begin() as connection:
        return write(connection, n)


def commit_and_await(database: Database, fleet, n: int) -> None:
    message_id = commit(database, n)
    eventually(lambda: message_id in sent(fleet))


@contextmanager
def prepared(database: Database, n: int) -> Iterator[tuple[TwoPhaseTransaction, str]]:
    """Prepare a transaction; return it, with the message in it."""
    with database.engine.connect() as connection:
        transaction = connection.begin_twophase()
        message_id = write(connection, n)
        transaction.prepare()
        yield transaction, message_id


def sent(fleet) -> list[str]:
    return [send.id for send in fleet.sends()]


def wake_state(database: Database) -> int:
    return database.scalar("SELECT last_value FROM outbox_wake")


@pytest.mark.parametrize("who_waits", ["the same relay", "the next relay"])
def test_a_prepared_message_is_delivered_when_it_is_committed(postgres_database, fleet, who_waits):
    postgres_database.execute(RESULT)
    postgres_database.execute("SELECT setval('outbox_wake', :asleep)", asleep=ASLEEP)  # as after a relay was killed
    relay = start_relay(fleet, postgres_database, notify=False)
    with prepared(postgres_database, 1) as (transaction, first):
        second = commit(postgres_database, 2)
        eventually(lambda: sent(fleet) == [second], what="what was committed overtakes it")
        if who_waits == "the next relay":
            eventually(lambda: unsettled(postgres_database) == 0, what="or the next relay would send it again")
            relay.kill()
            relay = start_relay(fleet, postgres_database, notify=False)
        third = commit(postgres_database, 3)
        eventually(lambda: sent(fleet) == [second, third], what="it is not sent while it may be rolled back")
        transaction.commit()
    eventually(lambda: sent(fleet) == [second, third, first], what="it is sent once it is committed")
    eventually(lambda: unsettled(postgres_database) == 0)


def test_a_prepared_message_that_is_rolled_back_is_never_sent(postgres_database, fleet):
    postgres_database.execute(RESULT)
    start_relay(fleet, postgres_database, notify=False)
    with prepared(postgres_database, 1) as (transaction, _):
        transaction.rollback()
    after = commit(postgres_database, 2)
    eventually(lambda: unsettled(postgres_database) == 0)
    assert sent(fleet) == [after]


def test_where_workers_notify_a_transaction_is_not_prepared_and_nothing_is_left_of_it(postgres_database, fleet):
    postgres_database.execute(RESULT)
    start_relay(fleet, postgres_database)
    eventually(lambda: wake_state(postgres_database) == ASLEEP, what="the relay sleeps")
    with postgres_database.engine.connect() as worker:
        write(worker, 1)
        with pytest.raises(DBAPIError, match="cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOT"):
            worker.execute(text("PREPARE TRANSACTION 'one'"))
    after = commit(postgres_database, 2)
    eventually(lambda: unsettled(postgres_database) == 0)
    assert sent(fleet) == [after]
    assert [row.n for row in postgres_database.rows("SELECT n FROM result")] == [2]


def test_notifying_is_switched_off_for_all_while_relays_run(postgres_database, fleet):
    postgres_database.execute(RESULT)
    start_relay(fleet, postgres_database, slow_poll_s=60)
    eventually(lambda: wake_state(postgres_database) == ASLEEP, what="the relay sleeps")
    postgres_database.execute("SELECT setval('outbox_wake', 0)")
    ids = []
    for n in range(4):
        with prepared(postgres_database, n) as (transaction, message_id):
            ids.append(message_id)
            transaction.commit()
        eventually(lambda: sent(fleet) == ids, what="the relay polls")
    assert wake_state(postgres_database) == 0


def test_nothing_is_sent_that_a_crash_could_undo_even_if_its_worker_does_not_wait_for_the_disk(private_postgres, fleet):
    server = private_postgres({"synchronous_commit": "off", "wal_writer_delay": "10s", "autovacuum": "off"})
    upgrade(server.url())
    database = Database("postgres", server.url())
    try:
        database.execute(RESULT)
        database.execute("CREATE TABLE control (n integer)")
        age = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())"
        eventually(lambda: database.scalar(age) > AFTER_RESTART_S, what="a relay takes all free shards")
        database.execute("CHECKPOINT")
        # The relay must not flush what the workers left in memory: it settles nothing, and beats seldom.
        fleet.hold_path.touch()
        start_relay(fleet, database, lease_s=60, beat_s=20, quiet_s=60)
        lost = 0
        for n in range(4):
            commit_and_await(database, fleet, 100 + n)  # once this is sent, the relay only reads
            commit_and_await(database, fleet, n)
            database.execute("INSERT INTO control VALUES (:n)", n=n)
            server.restart("immediate")
            database.dispose()
            lost += database.scalar("SELECT count(*) FROM control WHERE n = :n", n=n) == 0
            kept = {row.message_id for row in database.rows("SELECT message_id FROM result")}
            assert set(sent(fleet)) <= kept
        assert lost, "a crash undoes what was committed in the moments before"
        fleet.hold_path.unlink()
        eventually(lambda: unsettled(database) == 0)
    finally:
        database.dispose()
