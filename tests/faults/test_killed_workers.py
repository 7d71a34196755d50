"""A worker killed anywhere in its transaction leaves its result and its message, or neither."""

import random

import pytest
from sqlalchemy import text
from support import doomed_worker
from support.waiting import eventually
from support.workload import RESULTS

SEED = 4_711
DRIVERS = {"postgres": "psycopg", "sqlite": "pysqlite"}


@pytest.fixture
def worker(database, spawn):
    with database.engine.begin() as connection:
        connection.execute(text(RESULTS))
    url = database.sqlalchemy_url(DRIVERS[database.kind]).render_as_string(hide_password=False)
    return lambda point="none": spawn("python", doomed_worker.__file__, url, point)


def numbers(database) -> tuple[set[int], set[int]]:
    """Return the ids of the results and of the messages, after the dead worker's transactions are rolled back."""
    results = {row.n for row in database.rows("SELECT n FROM result")}
    messages = {int(row.subject.removeprefix("m-")) for row in database.rows("SELECT subject FROM outbox_message")}
    return results, messages


def await_no_transaction(database) -> None:
    """Wait until PostgreSQL has ended the transactions of the dead client. SQLite has none."""
    if database.kind == "postgres":
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        eventually(lambda: database.scalar(others) == 0, what="the worker's session is gone")


@pytest.mark.parametrize("point", doomed_worker.POINTS)
def test_a_worker_killed_at_a_point_of_its_transaction_leaves_both_rows_or_neither(database, worker, point):
    assert worker(point).wait() == -9
    await_no_transaction(database)
    results, messages = numbers(database)
    assert results == messages == set(range(1, 6 if point == "committed" else 5))


def test_a_worker_killed_at_random_moments_leaves_both_rows_or_neither(database, worker):
    chance = random.Random(SEED)
    for _ in range(8):
        process = worker()
        said = chance.randrange(1, 60)
        eventually(lambda process=process, said=said: len(process.stdout.split()) >= said, deadline_s=30)
        process.kill()
        await_no_transaction(database)
        results, messages = numbers(database)
        known = {int(n) for n in process.stdout.split("\n")[:-1]}
        assert results == messages
        assert known <= results
        assert len(results - known) <= 1
        database.execute("DELETE FROM result")
        database.execute("DELETE FROM outbox_message")
