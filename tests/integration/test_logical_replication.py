"""On a subscriber of logical replication, a relay finds what is applied late, and the doctor what is missing."""

from collections.abc import Iterator

import psycopg
import pytest
from support.databases import Database, PostgresDatabases
from support.desk import Desk, everything, ids, ruling, settle
from support.postgres import PostgresServer
from support.scene import Scene, Taker
from support.waiting import eventually

from relay.admin.doctor import Finding, examine
from relay.admin.messages.dead import DeadFilter, retry
from relay.databases.database import Database as Address

PUBLICATION = """
CREATE PUBLICATION outbox FOR TABLE
    outbox_message, outbox_delivery, outbox_history, outbox_destination, outbox_audit, inbox_message
    WITH (publish_via_partition_root = true)
"""


class Pair:
    """A publisher, and a subscriber in a cluster of its own that is ahead in transaction ids."""

    def __init__(self, publisher: Database, subscriber: Database) -> None:
        self.publisher, self.subscriber = Desk(publisher), Desk(subscriber)
        with psycopg.connect(subscriber.url, autocommit=True) as connection:
            for _ in range(300):
                connection.execute("SELECT pg_current_xact_id()")
            publisher.execute(PUBLICATION)
            connection.execute(f"CREATE SUBSCRIPTION outbox CONNECTION '{publisher.url}' PUBLICATION outbox")
        eventually(self._is_streaming, deadline_s=30, what="the tables are copied")

    def _is_streaming(self) -> bool:
        states = self.subscriber.database.rows("SELECT srsubstate FROM pg_subscription_rel")
        return {row.srsubstate for row in states} == {"r"}

    def catch_up(self) -> None:
        """Wait until the subscriber has applied all that is committed."""
        now = self.publisher.database.scalar("SELECT pg_current_wal_lsn()::text")
        applied = "SELECT bool_and(replay_lsn >= CAST(:now AS pg_lsn)) FROM pg_stat_replication"
        eventually(lambda: self.publisher.database.scalar(applied, now=now), deadline_s=30)

    def switch(self) -> None:
        """End the replication: workers and relays use the subscriber from now on."""
        self.catch_up()
        with psycopg.connect(self.subscriber.database.url, autocommit=True) as connection:
            connection.execute("DROP SUBSCRIPTION outbox")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[PostgresDatabases]]:
    publisher, subscriber = PostgresServer({"wal_level": "logical"}), PostgresServer()
    for server in (publisher, subscriber):
        server.start()
    databases = [PostgresDatabases(server.url()) for server in (publisher, subscriber)]
    yield databases
    for each in databases:
        each.close()
    for server in (publisher, subscriber):
        server.remove()


@pytest.fixture
def pair(servers: list[PostgresDatabases]) -> Iterator[Pair]:
    databases = [Database("postgres", each.url(each.create(each.migrated_template))) for each in servers]
    pair = Pair(*databases)
    yield pair
    for desk in (pair.subscriber, pair.publisher):
        for session in desk.sessions:
            session.close()
    with psycopg.connect(databases[1].url, autocommit=True) as connection:
        connection.execute("DROP SUBSCRIPTION IF EXISTS outbox")
    for each, server in zip(databases, servers, strict=True):
        each.dispose()
        server.retire(each.url.rpartition("/")[2])


def examined(desk: Desk) -> dict[str, Finding]:
    engine = Address.parse(desk.database.url).engine()
    try:
        return {each.check: each for each in examine(engine, lease_s=15, older_than_s=300)}
    finally:
        engine.dispose()


def test_what_the_publisher_commits_late_is_found_on_the_subscriber(pair: Pair) -> None:
    session, cursors = pair.subscriber.owner(), everything()
    with pair.publisher.database.engine.connect() as slow:
        late = Scene(pair.publisher.database)
        late.emit_into(slow, 1)
        pair.publisher.emit(20)
        pair.catch_up()
        assert len(session.reading.read_ready(cursors, 100).messages) == 20
        assert not session.reading.read_ready(cursors, 100)
        slow.commit()
    pair.catch_up()
    (found,) = session.reading.read_ready(cursors, 100).messages
    assert found[1] == 1, "it has the lowest position, and every cursor is past it"


def test_what_an_operator_puts_back_at_the_publisher_is_found_on_the_subscriber(pair: Pair) -> None:
    (sent,) = pair.publisher.emit(1)
    settle(pair.publisher.owner(), ruling(sent, "a", "dead"))
    pair.catch_up()
    session, cursors = pair.subscriber.owner(), everything()
    session.reading.read_ready(cursors, 100)
    session.reading.read_parked(cursors, ["a"], 100)
    assert not session.reading.read_ready(cursors, 100)
    retry(pair.publisher.database.engine, DeadFilter())
    pair.catch_up()
    assert session.reading.read_ready(cursors, 100).unparked == {"a"}
    assert ids(session.reading.read_parked(cursors, ["a"], 100)) == [sent]


async def test_a_relay_that_takes_over_at_the_switch_delivers_all_that_waits(pair: Pair) -> None:
    publisher, subscriber = Scene(pair.publisher.database), Scene(pair.subscriber.database)
    publisher.emit(20, ordering_key="k")
    pair.catch_up()
    taker = Taker()
    async with subscriber.relay({"a": taker}):
        publisher.emit(20, ordering_key="k")
        pair.catch_up()
        await subscriber.becomes(40, 0, 0, 0)
    assert taker.taken_of_key["k"] == list(range(40))


def test_after_the_switch_the_doctor_names_the_sequences_and_its_remedy_sets_them(pair: Pair) -> None:
    """Otherwise new messages would precede waiting ones, even within their ordering key."""
    waiting = pair.publisher.emit(5, ordering_key="k")
    retry(pair.publisher.database.engine, DeadFilter())
    pair.publisher.register("a")
    settle(pair.publisher.owner(), *(ruling(each, "a", "dead") for each in waiting[:2]))
    retry(pair.publisher.database.engine, DeadFilter())
    pair.switch()
    assert examined(pair.publisher)["sequences"].severity == "ok"
    finding = examined(pair.subscriber)["sequences"]
    assert finding.severity == "bad"
    assert "outbox_message_position_seq is at 1, but outbox_message is at 5" in finding.what
    assert "outbox_audit_id_seq" in finding.what
    for statement in finding.do.partition(": ")[2].split("; "):
        pair.subscriber.database.execute(statement)
    assert examined(pair.subscriber)["sequences"].severity == "ok"
    following = pair.subscriber.emit_one(ordering_key="k")
    assert pair.subscriber.position(following) == 6
    assert retry(pair.subscriber.database.engine, DeadFilter()) == 0


@pytest.mark.parametrize("table", ["outbox_message", "outbox_delivery"])
def test_what_restoring_a_dump_does_to_triggers_is_named_and_undone_by_its_remedy(
    postgres_database: Database, table: str
) -> None:
    """`pg_restore --disable-triggers` switches all of them off, and then on only for ordinary sessions."""
    desk = Desk(postgres_database)
    for what in ("DISABLE", "ENABLE"):
        postgres_database.execute(f"ALTER TABLE {table} {what} TRIGGER ALL")
    finding = examined(desk)["triggers"]
    assert finding.severity == "bad"
    for statement in finding.do.partition(": ")[2].split("; "):
        postgres_database.execute(statement)
    assert examined(desk)["triggers"].severity == "ok"
