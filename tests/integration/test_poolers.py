"""A real PgBouncer: in transaction mode a relay names it and ends, and workers work; in session mode both work."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from threading import Event, Thread
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from support.databases import Database
from support.fleet import Fleet, shard_counts
from support.pgbouncer import PgBouncer, PoolMode
from support.waiting import eventually
from support.writers import WAYS, Way, Writer

from relay.admin.access.opening import opened
from relay.admin.doctor import examine
from relay.databases.migrations import upgrade
from relay.settings import Settings

# What each driver's manual says to set behind a pooler that keeps no prepared statements.
FOR_A_POOLER = {
    "psycopg": {"prepare_threshold": None},
    "psycopg2": {},
    "asyncpg": {"statement_cache_size": 0, "prepared_statement_name_func": lambda: f"__{uuid4()}__"},
}

Pool = Callable[[PoolMode], Database]


@pytest.fixture
def pool(postgres_database: Database) -> Iterator[Pool]:
    """`pool("transaction")` returns the test's database through a PgBouncer."""
    started: list[tuple[PgBouncer, Database]] = []

    def start(mode: PoolMode) -> Database:
        pooler = PgBouncer(postgres_database.url, mode)
        database = Database("postgres", pooler.url)
        started.append((pooler, database))
        return database

    yield start
    for pooler, database in started:
        database.dispose()
        pooler.remove()


@pytest.fixture
def fleet(tmp_path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    print(fleet.report())
    fleet.end_all()


def history(database: Database) -> int:
    return database.scalar("SELECT count(*) FROM outbox_history")


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_relay_behind_transaction_pooling_names_it_and_ends(postgres_database, pool, fleet, spawn, is_busy):
    pooled = pool("transaction")
    fleet.configure(pooled.url)
    with Traffic(pooled.url if is_busy else None):
        relay = spawn("outbox", "relay", env=fleet.env)
        assert relay.wait() == 3, relay.report()
    assert "pooler in transaction mode" in relay.stderr.rstrip().splitlines()[-1]
    assert "OUTBOX_DATABASE_URL" in relay.stderr
    assert "Traceback" not in relay.stderr
    left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert postgres_database.scalar(left) == 0, "a lock was left behind in another client's session"


class Traffic:
    """Other clients of the pool, three at a time."""

    def __init__(self, url: str | None) -> None:
        self._is_over = Event()
        self._threads = [Thread(target=self._ask, args=[url]) for _ in range(3 if url else 0)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url: str) -> None:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            while not self._is_over.is_set():
                connection.execute("SELECT pg_sleep(0.001)")


def test_a_relay_behind_session_pooling_owns_delivers_and_is_succeeded(postgres_database, pool, fleet):
    pooled = pool("session")
    fleet.configure(pooled.url, beat_s=0.2)
    first = fleet.start()
    eventually(lambda: shard_counts(postgres_database.url) == {first.pid: 64})
    postgres_database.execute("SELECT outbox_emit('a.b', json_build_object('n', n)) FROM generate_series(1, 50) AS n")
    eventually(lambda: history(postgres_database) == 50, what="all are delivered")
    first.kill()
    second = fleet.start()
    eventually(lambda: shard_counts(postgres_database.url) == {second.pid: 64}, what="nothing is left")
    postgres_database.execute("SELECT outbox_emit('a.b', '{\"n\": 51}')")
    eventually(lambda: history(postgres_database) == 51, what="the next one delivers")
    assert len(fleet.sends()) == 51


@pytest.mark.parametrize("way", [way for way in WAYS if way.kind == "postgres"], ids=str)
async def test_workers_behind_transaction_pooling_emit_normally(postgres_database, pool, way: Way):
    writer = Writer(pool("transaction"), way)
    options = {"connect_args": FOR_A_POOLER[way.driver]}
    for n in range(8):  # so often that a driver would prepare its statements
        async with writer.transaction(**options) as one, writer.transaction(**options) as two:
            await one.emit("page.read", {"n": n}, ordering_key="k", strict_order=True)
            await two.emit("page.read", {"n": n}, ordering_key="other")
    with suppress(ZeroDivisionError):
        async with writer.transaction(**options) as one:
            await one.emit("page.lost", {})
            raise ZeroDivisionError
    rows = postgres_database.rows("SELECT type, data FROM outbox_message")
    assert sorted(row.data["n"] for row in rows) == sorted([*range(8), *range(8)])
    assert {row.type for row in rows} == {"page.read"}


def test_operators_commands_go_through_transaction_pooling_again_and_again(pool):
    settings = Settings(database_url=pool("transaction").url)
    with opened(settings) as one, opened(settings) as two, one.connect() as first, two.connect() as second:
        for _ in range(8):
            for connection in (first, second):
                connection.execute(sa.text("SELECT count(*) FROM outbox_message"))
                connection.commit()


@pytest.mark.parametrize(("mode", "severity"), [("transaction", "bad"), ("session", "ok")])
def test_the_doctor_knows_one_mode_from_the_other(pool, mode: PoolMode, severity: str):
    found = examine(pool(mode).engine, lease_s=15, older_than_s=300)
    (connection,) = [each for each in found if each.check == "connection"]
    assert connection.severity == severity


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_its_schema_is_found_through_a_pooler_and_not_left_to_other_clients(pool, mode: PoolMode):
    pooled = pool(mode)
    upgrade(pooled.url, schema="messaging")
    settings = Settings(database_url=pooled.url, schema_name="messaging")
    with opened(settings) as engine:
        for _ in range(8):  # so often that a driver would prepare its statements
            with engine.connect() as connection:
                assert connection.scalar(sa.text("SELECT to_regclass('outbox_message')::text")) == "outbox_message"
                assert connection.scalar(sa.text("SELECT current_schema()")) == "messaging"
    with ExitStack() as stack:
        others = [stack.enter_context(pooled.engine.connect()) for _ in range(4)]
        paths = {str(other.scalar(sa.text("SHOW search_path"))) for other in others}
    assert not any("messaging" in path for path in paths)


def test_a_relay_with_a_schema_of_its_own_works_behind_session_pooling(pool, spawn, fleet):
    pooled = pool("session")
    upgrade(pooled.url, schema="messaging")
    pooled.execute("SELECT messaging.outbox_emit('a.b', json_build_object('n', n)) FROM generate_series(1, 5) AS n")
    fleet.configure(pooled.url)
    relay = spawn("outbox", "relay", "--drain", env=fleet.env | {"OUTBOX_SCHEMA": "messaging"})
    assert relay.wait() == 0, relay.report()
    assert pooled.scalar("SELECT count(*) FROM messaging.outbox_history") == 5
