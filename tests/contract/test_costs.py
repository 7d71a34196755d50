"""Reads and settling cost the same for any contents, dead rows and statistics of the tables."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.databases import Database
from support.desk import Desk, sweep, take
from support.plans import Plan, watched
from support.scene import Scene, Taker

from outbox.tables import SHARD_COUNT
from relay.databases.database import Database as Address
from relay.databases.postgresql.sql.reading import READ_PARKED
from relay.databases.postgresql.store.connection import OwningConnection
from relay.databases.postgresql.store.session import PostgresSession, PostgresStore
from relay.databases.store.contract import RELEASE_COUNT
from relay.databases.store.records import Batch, Ruled
from relay.databases.store.rows import Cursors
from relay.owner.session_loop import SessionLoop

ALL = list(range(SHARD_COUNT))
MESSAGE = {"outbox_message_pkey"}
REGISTERED = "outbox_destination_generation"
DELIVERY = {"outbox_delivery_pkey"}
KEY = {"outbox_delivery_key"}

# The indexes and tables of ours that each statement may scan; it may scan no others.
RIDES_ON: dict[str, set[str]] = {
    "READ_READY": {REGISTERED, "outbox_message_ready"},
    "LOOK": {"outbox_message_txid", "outbox_delivery_txid"},
    "LOOK_AND_READ": {"outbox_message_txid", "outbox_delivery_txid", "outbox_message_ready", REGISTERED},
    "LOOK_AND_READ_SMALL": {"outbox_message_txid", "outbox_delivery_txid", "outbox_message_ready", REGISTERED},
    "READ_LATE": {REGISTERED, "outbox_message_txid"},
    "LATE_FLOOR": {"outbox_message_txid"},
    "LATE_DELIVERIES": {"outbox_delivery_txid"},
    "READ_PARKED": {"outbox_delivery_parked"} | MESSAGE,
    "READ_SCHEDULED": {REGISTERED, "outbox_message_due"},
    "READ_RETRIES": {"outbox_delivery_retry"} | MESSAGE,
    "HELD_KEYS": KEY,
    "BLOCKED_KEYS": KEY,
    "SETTLE_PLAIN": set(),
    "SETTLE_PLAIN_KEEPING_NONE": set(),
    "SETTLE_MOVED": MESSAGE,
    "SETTLE_MOVED_KEEPING_NONE": MESSAGE,
    "WRITE_RULED": MESSAGE | DELIVERY,
    "WRITE_UNKNOWN": MESSAGE | DELIVERY,
    "FINISH": MESSAGE | DELIVERY,
    "KEYS_OF": DELIVERY | {"outbox_shard_pkey"},
    "RELEASE_KEYS": KEY | DELIVERY,
    "SWEEP": MESSAGE | KEY | DELIVERY,
    "MARK_UNROUTED": {REGISTERED, *MESSAGE},
}
AS_EMITTED = {"id_": "outbox_uuid7()", "data": "json_build_object('pad', repeat('x', 190))"}
READS = ("READ_READY", "LOOK_AND_READ", "LOOK_AND_READ_SMALL")


@pytest.fixture
def session(postgres_database: Database) -> Iterator[PostgresSession]:
    session = open_session(postgres_database)
    yield session
    session.close()


@pytest.fixture
def lite(sqlite_database: Database) -> Iterator[Desk]:
    with Desk(sqlite_database) as desk:
        yield desk


def open_session(database: Database, *, keep_history: bool = True) -> PostgresSession:
    return PostgresStore(Address.parse(database.url), lease_s=60, keep_history=keep_history, notify=True).open(
        "relay-1"
    )


def fill(
    database: Database, count: int, *, key: str = "NULL", id_: str = "gen_random_uuid()", data: str = "'{}'"
) -> None:
    """Insert ready messages by SQL."""
    database.execute(
        "INSERT INTO outbox_message (id, type, source, data, ordering_key) "
        f"SELECT {id_}, 'page.read', 'sql', {data}, {key} FROM generate_series(1, {count}) AS n"
    )


def set_aside(database: Database, count: int) -> None:
    """Insert messages of many keys and a hot one, each with a delivery in a state, and as many scheduled ones."""
    fill(database, count, key="CASE WHEN n % 2 = 0 THEN 'k' || n % 997 END")
    database.execute(
        "INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state, due_at, reason) "
        "SELECT id, 'a', shard, position, ordering_key, fate, CASE fate WHEN 'retry' THEN now() END, 'why' FROM ("
        "SELECT *, (ARRAY['parked', CASE WHEN ordering_key IS NULL THEN 'dead' ELSE 'blocked' END, 'retry', 'dead', "
        "'delivered'])[1 + position % 5] AS fate FROM outbox_message) AS m"
    )
    database.execute("UPDATE outbox_message SET state = 'held'")
    database.execute(
        "INSERT INTO outbox_message (id, type, source, data, state, due_at) "
        "SELECT gen_random_uuid(), 'page.read', 'sql', '{}', 'scheduled', now() - n * interval '1 second' "
        f"FROM generate_series(1, {count}) AS n"
    )


def verdict(row: Any, state: str) -> Ruled:
    return Ruled(row[0], "a", state, 0, 1, 0.0, "why" if state in ("retry", "dead") else None, None)


def a_working_life(session: PostgresSession, database: Database) -> None:
    """Run every statement of a relay often enough for it to be prepared."""
    cursors = Cursors(dict.fromkeys(ALL, 0))
    session.ownership.take(ALL)
    for _ in range(3):
        fill(database, 300, key="'k' || n % 7")
        fill(database, 1, key="'k0'", data="json_build_object('pad', repeat('x', 20000))")  # too large for a page
        messages = session.reading.read_ready(cursors, 200).messages
        database.execute("UPDATE outbox_message SET txid = pg_current_xact_id() WHERE position % 7 = 0")
        database.execute(
            "UPDATE outbox_delivery SET txid = pg_current_xact_id() "
            "WHERE position % 7 = 0 AND state IN ('parked', 'discarded')"
        )
        session.reading.read_ready(cursors, 0)
        session.reading.read_ready(cursors, 100)
        session.reading.read_parked(cursors, ["a", "b"], 200)
        session.reading.read_due(ALL, 200)
        session.reading.reread_due()
        session.reading.held_keys([f"k{n}" for n in range(50)], ["a", "b"])
        session.reading.blocked_keys([("a", f"k{n}") for n in range(50)])
        plain, unrouted, *others = messages[:50], messages[50:60], messages[60:80], messages[80:100], messages[100:120]
        session.settling.settle_plain(plain)()
        session.settling.mark_unrouted([(row[0], 0) for row in unrouted])
        for rows, state in zip(others, ("retry", "parked", "blocked"), strict=True):
            session.settling.settle(Batch([(row[0], 0) for row in rows], [verdict(row, state) for row in rows]))
        session.settling.settle(Batch([], [verdict(row, "delivered") for row in others[0]]))
        session.settling.settle(Batch([], [replace(verdict(row, "parked"), is_unknown=True) for row in others[1]]))
        session.settling.discard([(row[0], "a") for row in others[1]])
        sweep(session)


def by_name(plans: list[Plan]) -> dict[str, list[Plan]]:
    found: defaultdict[str, list[Plan]] = defaultdict(list)
    for plan in plans:
        found[plan.name].append(plan)
    return found


def assert_rides_on_its_indexes(plans: list[Plan]) -> None:
    for plan in plans:
        if plan.name in RIDES_ON:
            assert plan.indexes <= RIDES_ON[plan.name], str(plan)
            assert not {table for table in plan.scanned_tables if table.startswith("outbox_")}, str(plan)


@pytest.mark.parametrize("count", [0, 1_000, 30_000])
@pytest.mark.parametrize("analysed", ["never", "empty", "full"])
def test_every_statement_uses_its_index_for_any_contents_and_any_statistics(
    postgres_database: Database, session: PostgresSession, count: int, analysed: str
) -> None:
    if analysed == "empty":
        postgres_database.execute("ANALYZE outbox_message, outbox_delivery")
    set_aside(postgres_database, count)
    if analysed == "full":
        postgres_database.execute("ANALYZE outbox_message, outbox_delivery")
    with watched(session) as plans:
        a_working_life(session, postgres_database)
    assert_rides_on_its_indexes(plans)
    rare = {"LATE_FLOOR", "SETTLE_PLAIN_KEEPING_NONE", "SETTLE_MOVED_KEEPING_NONE"}
    assert set(RIDES_ON) - rare <= set(by_name(plans)), "the life above runs every statement"


def test_a_key_that_is_blocked_costs_the_same_however_many_wait_for_it(
    postgres_database: Database, session: PostgresSession
) -> None:
    for count in (10, 20_000):
        fill(postgres_database, count, key="'hot'")
        postgres_database.execute(
            "INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state) "
            "SELECT id, 'a', shard, position, ordering_key, 'blocked' FROM outbox_message ON CONFLICT DO NOTHING"
        )
        with watched(session) as plans:
            held = session.reading.held_keys(["hot", "cold"], ["a", "b"])
            blocked = session.reading.blocked_keys([("a", "hot"), ("b", "hot")])
        assert held.keys() == blocked.keys() == {("a", "hot")}
        assert [plan.rows_looked_at for plan in plans] == [1, 1]


def block_behind(database: Database, count: int, destination: str = "a") -> str:
    """Insert a message of a key that is to be retried, and blocked ones behind it; return the id of the first."""
    fill(database, count, key="'hot'")
    database.execute(
        "INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state, due_at) "
        f"SELECT id, '{destination}', shard, position, ordering_key, "
        "CASE WHEN row_number() OVER (ORDER BY position) = 1 THEN 'retry' ELSE 'blocked' END, "
        "CASE WHEN row_number() OVER (ORDER BY position) = 1 THEN now() END FROM outbox_message WHERE state = 'ready'"
    )
    database.execute("UPDATE outbox_message SET state = 'held'")
    return str(database.scalar("SELECT message_id FROM outbox_delivery WHERE state = 'retry'"))


def test_releasing_a_key_costs_the_same_however_many_wait_for_it(
    postgres_database: Database, session: PostgresSession
) -> None:
    looked_at = []
    for count in (2 * RELEASE_COUNT, 40 * RELEASE_COUNT):
        postgres_database.execute("TRUNCATE outbox_message, outbox_delivery")
        first = block_behind(postgres_database, count)
        with watched(session) as plans:
            released = session.settling.settle(Batch([], [replace(verdict((first,), "delivered"), attempts=0)]))
        assert len(released) == RELEASE_COUNT
        (plan,) = (plan for plan in plans if plan.name == "RELEASE_KEYS")
        looked_at.append(plan.rows_looked_at)
    assert looked_at[1] == looked_at[0]


def test_a_key_that_is_blocked_costs_the_same_on_sqlite_too(lite: Desk) -> None:
    session, work = lite.owner(), []
    for count in (10, 10_000):
        first = lite.database.scalar("SELECT count(*) FROM outbox_delivery")
        lite.database.execute(
            "INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state) "
            "WITH RECURSIVE n (i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last) "
            "SELECT 'm' || i, 'a', 1, i, 'hot', 'blocked' FROM n",
            first=first,
            last=first + count,
        )
        steps = Counter[int]()
        session.connection.bare.set_progress_handler(lambda steps=steps, n=count: steps.update([n]), 1)
        assert session.reading.held_keys(["hot", "cold"], ["a", "b"]) == {("a", "hot"): 0}
        assert session.reading.blocked_keys([("a", "hot"), ("b", "hot")]) == {("a", "hot"): 0}
        session.connection.bare.set_progress_handler(None, 1)
        work.append(steps[count])
    assert work[1] == work[0]


@pytest.mark.parametrize("keys", [1, 1_000_000], ids=["of one key", "each of its own key"])
def test_a_slice_costs_the_same_however_much_is_blocked_was_blocked_or_lies_elsewhere(
    postgres_database: Database, session: PostgresSession, keys: int
) -> None:
    """Released rows stay in the table, because vacuum cannot remove them."""
    session.ownership.take(ALL)
    costs = []
    with postgres_database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as slow:
        slow.exec_driver_sql("SELECT count(*) FROM outbox_delivery")
        for count in (10_000, 20_000):
            fill(postgres_database, count, key=f"'k' || n % {keys}")
            postgres_database.execute(
                "INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state) "
                "SELECT id, 'a', shard, position, ordering_key, 'blocked' FROM outbox_message ON CONFLICT DO NOTHING"
            )
            with watched(session) as plans:
                at: int | None = 0
                while at is not None:
                    at = session.settling.sweep(at, ALL, ALL).next_at
            costs.append([(plan.rows_looked_at, plan.pages) for plan in plans if plan.name == "SWEEP"])
    (rows, pages), (rows_later, pages_later) = (map(max, zip(*each, strict=True)) for each in costs)
    assert len(costs[1]) > 2 * len(costs[0]) > 4
    assert rows_later <= 1.1 * rows
    assert pages_later <= 1.5 * pages  # the indexes are deeper


async def test_taking_shards_costs_the_same_however_much_is_blocked_there(postgres_database: Database) -> None:
    costs = []
    for count in (0, 20_000):
        set_aside(postgres_database, count)
        session = open_session(postgres_database)
        with watched(session) as plans:
            assert len(session.ownership.take(ALL)) == SHARD_COUNT
        session.close()
        costs.append(Counter(plan.name for plan in plans))
        assert not {"outbox_delivery"} & {table for plan in plans for table in plan.scanned_tables}
    assert costs[0] == costs[1]


def test_releasing_a_key_costs_the_same_however_many_wait_for_it_on_sqlite_too(lite: Desk) -> None:
    session, work = lite.owner(), []
    for count in (2 * RELEASE_COUNT, 20 * RELEASE_COUNT):
        lite.database.execute("DELETE FROM outbox_delivery")
        lite.database.execute(
            "INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state) "
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
            "SELECT 'm' || i, 'a', 1, i, 'hot', 'blocked' FROM n",
            count=count,
        )
        steps = Counter[int]()
        session.connection.bare.set_progress_handler(lambda steps=steps, n=count: steps.update([n]), 1)
        with session.connection.writing():
            released = session.settling._release([("a", "hot")])
        session.connection.bare.set_progress_handler(None, 1)
        assert len(released) == RELEASE_COUNT
        work.append(steps[count])
    assert work[1] == work[0]


def test_more_late_commits_than_a_page_ride_on_the_index_too(
    postgres_database: Database, session: PostgresSession
) -> None:
    fill(postgres_database, 3_000)
    cursors = Cursors(dict.fromkeys(ALL, 0))
    session.ownership.take(ALL)
    while session.reading.read_ready(cursors, 1000):
        pass
    with watched(session) as plans:
        postgres_database.execute("UPDATE outbox_message SET txid = pg_current_xact_id()")
        session.reading.read_ready(cursors, 10)
    assert "LATE_FLOOR" in by_name(plans)
    assert_rides_on_its_indexes(plans)


def test_settling_without_a_history_rides_on_the_index_too(postgres_database: Database) -> None:
    session = open_session(postgres_database, keep_history=False)
    fill(postgres_database, 1_000)
    with watched(session) as plans:
        cursors = Cursors(dict.fromkeys(ALL, 0))
        session.ownership.take(ALL)
        for _ in range(4):
            messages = session.reading.read_ready(cursors, 100).messages
            postgres_database.execute("UPDATE outbox_message SET subject = 'moved' WHERE position % 50 = 0")
            session.settling.settle_plain(messages)()
    session.close()
    assert {"SETTLE_PLAIN_KEEPING_NONE", "SETTLE_MOVED_KEEPING_NONE"} <= set(by_name(plans))
    assert_rides_on_its_indexes(plans)


@pytest.mark.parametrize("read_as", ["ready", "late", "due"])
def test_what_lies_where_it_was_read_is_settled_there_each_row_looked_at_once(
    postgres_database: Database, session: PostgresSession, read_as: str
) -> None:
    session.ownership.take(ALL)
    cursors = Cursors(dict.fromkeys(ALL, 0))
    if read_as == "late":
        session.reading.read_ready(cursors, 100)
        cursors.ready = dict.fromkeys(ALL, 1_000)
    fill(postgres_database, 50)
    if read_as == "due":
        postgres_database.execute("UPDATE outbox_message SET state = 'scheduled', due_at = created_at")
        messages = session.reading.read_due(ALL, 100).messages
    else:
        messages = session.reading.read_ready(cursors, 100).messages
    with watched(session) as plans:
        assert session.settling.settle_plain(messages)() == 50
    found_and_deleted = 2 * 50
    assert [(plan.name, plan.rows_looked_at_in("outbox_message")) for plan in plans] == [
        ("SETTLE_PLAIN", found_and_deleted)
    ]


def settle_all(session: PostgresSession, cursors: Cursors) -> None:
    while messages := session.reading.read_ready(cursors, 500).messages:
        session.settling.settle_plain(messages)()


def a_poll(session: PostgresSession, cursors: Cursors) -> Counter[str]:
    """Return the pages that an empty poll reads, by statement."""
    with watched(session) as plans:
        assert not session.reading.read_ready(cursors, 500)
        assert not session.reading.read_ready(cursors, 0)
        assert not session.reading.read_due(ALL, 500)
        session.reading.read_parked(cursors, ["a"], 500)
    return Counter({plan.name: plan.pages for plan in plans})


def a_poll_of_a_successor(database: Database) -> Counter[str]:
    """Return the pages that an empty poll of a successor's session reads."""
    session, cursors = open_session(database), Cursors(dict.fromkeys(ALL, 0))
    session.ownership.take(ALL)
    assert not session.reading.read_ready(cursors, 500)
    pages = a_poll(session, cursors)
    session.close()
    return pages


def test_a_look_costs_the_same_however_much_was_settled_that_no_vacuum_may_take_away(
    postgres_database: Database, session: PostgresSession
) -> None:
    cursors = Cursors(dict.fromkeys(ALL, 0))
    session.ownership.take(ALL)
    with postgres_database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as slow:
        slow.exec_driver_sql("SELECT count(*) FROM outbox_message")
        fill(postgres_database, 2_000)
        settle_all(session, cursors)
        before = a_poll(session, cursors)
        for _ in range(6):
            fill(postgres_database, 5_000)
            settle_all(session, cursors)
        postgres_database.execute("ANALYZE outbox_message")
        after = a_poll(session, cursors)
        session.close()
        afterwards = a_poll_of_a_successor(postgres_database)
        dead = postgres_database.scalar("SELECT pg_relation_size('outbox_message') / 8192")
    assert dead > 300
    for name in before:
        # a descent may be a level deeper, and the cursor's leaf page may hold more: the cost never grows in proportion
        assert after[name] <= before[name] + 4 * SHARD_COUNT, name
        assert afterwards[name] <= before[name] + 4 * SHARD_COUNT, name
    assert after["LOOK"] <= before["LOOK"] + 16


def test_reading_a_page_costs_the_same_however_much_was_settled_before_it(
    postgres_database: Database, session: PostgresSession
) -> None:
    cursors = Cursors(dict.fromkeys(ALL, 0))
    session.ownership.take(ALL)
    looked_at = []
    with postgres_database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as slow:
        slow.exec_driver_sql("SELECT count(*) FROM outbox_message")
        for _ in range(5):
            fill(postgres_database, 4_000)
            with watched(session) as plans:
                settle_all(session, cursors)
            looked_at.append(sum(plan.rows_looked_at for plan in plans if plan.name in READS))
    # once, by their position: the index of transactions shows that none of them came late
    assert all(4_000 <= rows <= 4_100 for rows in looked_at), looked_at


def test_very_many_ready_messages_are_read_a_page_at_a_time(postgres_database: Database) -> None:
    """The indexes that are not read here are left out: making them takes longer than everything else."""
    for index in ("outbox_message_txid", "outbox_message_due"):
        postgres_database.execute(f"DROP INDEX {index}")
    fill(postgres_database, 250_000)
    postgres_database.execute("CREATE INDEX outbox_message_txid ON outbox_message (txid, position, due_at)")
    session = open_session(postgres_database)
    session.ownership.take(ALL)
    cursors = Cursors(dict.fromkeys(ALL, 0))
    with watched(session) as plans:
        for _ in range(5):
            messages = session.reading.read_ready(cursors, 500).messages
            assert len(messages) > 300
            session.settling.settle_plain(messages)()
    session.close()
    assert_rides_on_its_indexes(plans)
    reads = [plan for plan in plans if plan.name in READS]
    assert all(plan.rows_looked_at <= 500 + 8 * SHARD_COUNT for plan in reads)
    assert all(plan.pages < 4_000 for plan in reads)


@pytest.mark.parametrize(("keep_history", "bound"), [(True, 700), (False, 120)])
def test_a_message_costs_no_more_bytes_in_the_servers_log_than_measured(
    postgres_database: Database, keep_history: bool, bound: int
) -> None:
    """Measured with 200 bytes of data and no key: 607 bytes for writing, 494 for moving, 59 for deleting it."""
    count = 5_000
    session = open_session(postgres_database, keep_history=keep_history)
    cursors = Cursors(dict.fromkeys(take(session, ALL), 0))
    postgres_database.execute("CHECKPOINT")  # the first change to a page after a checkpoint logs the whole page
    fill(postgres_database, 500, **AS_EMITTED)
    settle_all(session, cursors)
    begun = written(postgres_database)
    fill(postgres_database, count, **AS_EMITTED)
    emitted = written(postgres_database)
    settle_all(session, cursors)
    settled = written(postgres_database)
    session.close()
    assert (emitted - begun) / count < 850
    assert (settled - emitted) / count < bound


def written(database: Database) -> int:
    """Return the bytes in the server's write-ahead log until now."""
    return int(database.scalar("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


async def test_a_drain_takes_a_few_statements_a_turn_and_none_a_message(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []

    def counting(run: Any) -> Any:
        def counted(self: OwningConnection, statement: str, **parameters: Any) -> Any:
            statements.append(statement)
            return run(self, statement, **parameters)

        return counted

    for name in ("run", "run_ahead"):
        monkeypatch.setattr(OwningConnection, name, counting(getattr(OwningConnection, name)))
    turn, turns = SessionLoop.turn, []
    monkeypatch.setattr(SessionLoop, "turn", lambda session_loop: turns.append(session_loop) or turn(session_loop))
    scene = Scene(postgres_database)
    for size in (1_000, 5_000):
        statements.clear()
        turns.clear()
        scene.emit(size)
        await scene.drain({"a": Taker(), "b": Taker()}, page_size=500, beat_s=5, window=20_000)
        # A look and a settling each; how many turns there are depends on the speed of the listeners.
        assert len(statements) <= 4 * len(turns) + 40
        assert statements.count(READ_PARKED) <= 2  # nothing is parked: that is found once, not for each page
