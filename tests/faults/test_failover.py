"""A standby grants the same locks and owns nothing; a failover loses and repeats only what was not copied."""

import json
from collections import Counter

import pytest
from sqlalchemy import text
from support.databases import Database
from support.fleet import owners, shard_counts
from support.reckoning import unsettled
from support.waiting import eventually
from support.wire import Wire, url_through

from outbox import emit
from relay import Settings
from relay.admin.destinations.registration import Registration, register
from relay.databases.migrations import upgrade


@pytest.fixture
def primary(private_postgres):
    server = private_postgres()
    upgrade(server.url())
    with server.connect() as connection:
        connection.execute("CREATE TABLE result (n integer PRIMARY KEY, message_id uuid NOT NULL)")
    return server


@pytest.fixture
def standby(primary, private_postgres):
    return private_postgres({"log_connections": "on"}, standby_of=primary)


@pytest.fixture
def on():
    """`on(server)` returns the server's database."""
    databases = []

    def database(server) -> Database:
        databases.append(Database("postgres", server.url()))
        return databases[-1]

    yield database
    for each in databases:
        each.dispose()


def commit(database: Database, *numbers: int) -> set[str]:
    """Commit a result and its message for each number, in one transaction."""
    with database.engine.begin() as connection:
        ids = {n: emit(connection, "extraction.completed", {"n": n}) for n in numbers}
        for n, message_id in ids.items():
            connection.execute(text("INSERT INTO result VALUES (:n, :id)"), {"n": n, "id": message_id})
    return set(ids.values())


def ids_in(database: Database, table: str) -> set[str]:
    column = "message_id" if table == "result" else "id"
    return {str(row[0]) for row in database.rows(f"SELECT {column} FROM {table}")}


def promote(server) -> None:
    with server.connect() as connection:
        assert connection.execute("SELECT pg_promote()").fetchone() == (True,)


@pytest.mark.parametrize("is_registered", [True, False], ids=["registered", "not-registered"])
def test_a_relay_on_a_standby_owns_and_sends_nothing_until_it_is_promoted(primary, standby, on, fleet, is_registered):
    before, after = on(primary), on(standby)
    if is_registered:
        register(Settings(database_url=before.url).database, [Registration("log", "listener", ("*",), "block")])
    fleet.configure(after.url, beat_s=0.2)
    relay = fleet.start()
    eventually(lambda: said(relay, "waiting"), what="it says that it waits")
    ids = commit(before, *range(20))
    eventually(lambda: ids_in(after, "outbox_message") == ids, what="the standby has all of them")
    tries = standby.log.count("connection authorized")
    eventually(lambda: standby.log.count("connection authorized") > tries + 2, what="it looks again")
    assert owners(after.url) == {}
    assert fleet.sends() == []
    assert [line["level"] for line in log_of(relay) if line["level"] != "info"] == ["warning"]
    assert len(said(relay, "waiting")) == 1
    primary.stop("immediate")
    promote(standby)
    eventually(lambda: shard_counts(after.url) == {relay.pid: 64}, what="it owns everything")
    eventually(lambda: unsettled(after) == 0, what="it has delivered everything")
    assert Counter(send.id for send in fleet.sends()) == Counter(ids)


def log_of(relay) -> list[dict]:
    return [json.loads(line) for line in relay.output.splitlines()]


def said(relay, what: str) -> list[dict]:
    return [line for line in log_of(relay) if line["event"] == what]


@pytest.mark.parametrize("who_goes_on", ["the same relay", "another relay"])
def test_a_failover_loses_results_with_their_messages_and_a_relay_repeats_what_was_settled_and_forgotten(
    primary, standby, on, fleet, who_goes_on
):
    """Relays connect through an address that moves from one server to the other, as in most clusters."""
    before, after = on(primary), on(standby)
    wire = Wire(primary.port)
    try:
        fleet.configure(url_through(wire, before), beat_s=0.2, lease_s=5)
        relay = fleet.start()
        replicated = commit(before, *range(20))
        eventually(lambda: ids_in(after, "outbox_history") == replicated, what="all settled on both")
        fleet.hold_path.touch()
        forgotten = commit(before, *range(100, 110))
        eventually(lambda: ids_in(after, "outbox_message") == forgotten, what="they are on the standby")
        stop_following(standby)
        lost = commit(before, *range(200, 205))
        eventually(lambda: len(fleet.sends()) == 35, what="all of them are under way")
        fleet.hold_path.unlink()
        eventually(lambda: unsettled(before) == 0, what="all of them are settled on the primary")
        primary.stop("immediate")
        if who_goes_on == "another relay":
            relay.kill()
            relay = fleet.start()
        promote(standby)
        wire.server_port = standby.port
        eventually(
            lambda: shard_counts(after.url) == {relay.pid: 64}, deadline_s=30, what="the relay goes on by itself"
        )
        fresh = commit(after, *range(300, 310))
        eventually(lambda: unsettled(after) == 0, what="everything is settled")
    finally:
        wire.close()
    kept = replicated | forgotten | fresh
    assert ids_in(after, "outbox_history") == ids_in(after, "result") == kept
    times = Counter(send.id for send in fleet.sends())
    assert set(times) == kept | lost, "lost messages had been sent, which cannot be undone"
    repeated = {message_id for message_id, count in times.items() if count > 1}
    assert repeated <= forgotten
    assert who_goes_on == "the same relay" or repeated == forgotten
    assert max(times.values()) <= 2


def stop_following(standby) -> None:
    """Stop the replication: commits from now on are only on the primary."""
    with standby.connect() as connection:
        connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
        connection.execute("SELECT pg_reload_conf()")
        eventually(lambda: connection.execute("SELECT count(*) FROM pg_stat_wal_receiver").fetchone() == (0,))
