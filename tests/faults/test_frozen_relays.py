"""Relays frozen for longer than their lease: a peer goes on, and the frozen relay does no harm when it wakes."""

import time
import uuid
from typing import Any

import psycopg
from sqlalchemy import make_url, text
from support.databases import Database
from support.fleet import Fleet, Relay, backend_of, owners, shard_counts
from support.waiting import eventually
from support.wire import url_through

from outbox import emit_many

LEASE_S = 3.0
SLACK_S = 30.0  # for a machine that is busy with other work
FAIR = 32
READ_READY = "SELECT NULL, NULL"  # in the last statement of a turn, and in no other
LARGE_BYTES = 20_000_000
EMIT = """
INSERT INTO outbox_message (id, type, source, ordering_key, data) VALUES
    (:id, 'extraction.completed', 'sql', :key, jsonb_build_object('n', 0, 'text', repeat('x', :size)))
"""


def start_pair(fleet: Fleet, database: Database, *, sleeper_url: str | None = None, **settings) -> tuple[Relay, Relay]:
    """Start two relays, each with its half of the shards; the second one sends without delay."""
    fleet.configure(database.url, lease_s=LEASE_S, beat_s=0.2, quiet_s=60, **settings)
    sleeper = fleet.start(env={"DATABASE_URL": sleeper_url or database.url})
    eventually(lambda: shard_counts(database.url)[sleeper.pid] == 2 * FAIR)
    peer = fleet.start(env={"RECORD_WORK_S": "0", "RECORD_HOLD_PATH": ""})
    await_halves(database, sleeper, peer)
    return sleeper, peer


def await_halves(database: Database, *relays: Relay) -> None:
    halves = {relay.pid: FAIR for relay in relays}
    eventually(lambda: shard_counts(database.url) == halves, what="each owns its half")


def await_takeover(database: Database, peer: Relay, frozen_at: float) -> float:
    """Wait until the peer owns everything; return how long after the freeze that was."""
    eventually(
        lambda: shard_counts(database.url) == {peer.pid: 2 * FAIR},
        deadline_s=2 * LEASE_S + 1 + SLACK_S,
        what="the peer owns all shards",
    )
    return time.monotonic() - frozen_at


def commit(database: Database, count: int, *, first: int = 0, key: str | None = None) -> set[str]:
    with database.engine.begin() as connection:
        return set(
            emit_many(connection, [("extraction.completed", {"n": first + n}) for n in range(count)], ordering_key=key)
        )


def last_seen_at(database: Database, relay: Relay) -> Any:
    return database.scalar("SELECT last_seen_at FROM outbox_relay WHERE id LIKE :id", id=f"%-{relay.pid}-%")


def assert_two_leases_after(database: Database, seen_at: Any) -> None:
    """Assert that the server's clock is two leases past the last beat: a peer has waited for that long."""
    assert database.scalar("SELECT extract(epoch FROM clock_timestamp() - :at)", at=seen_at) >= 2 * LEASE_S


def settled(database: Database) -> set[str]:
    return {str(row.id) for row in database.rows("SELECT id FROM outbox_history")}


def await_settled(database: Database, ids: set[str]) -> None:
    eventually(lambda: settled(database) == ids, deadline_s=30, what=f"{len(ids)} messages are settled")


def backend_state(database: Database, backend: int) -> tuple[str | None, str | None]:
    row = database.rows("SELECT state, wait_event_type FROM pg_stat_activity WHERE pid = :pid", pid=backend)
    return (row[0].state, row[0].wait_event_type) if row else (None, None)


def assert_woken_without_harm(fleet: Fleet, database: Database, sleeper: Relay, peer: Relay, ids: set[str]) -> None:
    """Assert that the woken relay finds everything done: it sends and changes nothing, and owns its half again."""
    history = database.rows("SELECT id, delivered_at, attempts FROM outbox_history ORDER BY id")
    woken_at = time.monotonic()
    sleeper.thaw()
    await_halves(database, sleeper, peer)
    eventually(lambda: "shards_handed_back" in peer.output, what="it says what it has handed back")
    assert peer.output.count("shards_handed_back") == 1, "it hands back once, and the other takes all of that"
    assert [send for send in fleet.sends() if send.pid == sleeper.pid and send.at_s > woken_at] == []
    assert database.rows("SELECT id, delivered_at, attempts FROM outbox_history ORDER BY id") == history
    more = commit(database, 64, first=10_000)
    await_settled(database, ids | more)
    assert {send.pid for send in fleet.sends() if send.id in more} == {sleeper.pid, peer.pid}


def test_the_shards_of_a_relay_frozen_while_idle_go_to_a_peer(postgres_database, fleet):
    sleeper, peer = start_pair(fleet, postgres_database)
    sleeper.freeze()
    frozen_at = time.monotonic()
    ids = commit(postgres_database, 200)
    taken_after_s = await_takeover(postgres_database, peer, frozen_at)
    assert "peer_ended" not in peer.output, "the server itself ends a session that is idle for a lease"
    print(f"taken {taken_after_s:.1f} s after the freeze, with a lease of {LEASE_S:g} s")
    await_settled(postgres_database, ids)
    assert_woken_without_harm(fleet, postgres_database, sleeper, peer, ids)


def test_a_relay_frozen_with_a_full_queue_sends_none_of_it_when_it_wakes(postgres_database, fleet):
    slowly = {"log": {"listener": "support.recording:record", "concurrency": 1}}
    sleeper, peer = start_pair(fleet, postgres_database, destinations=slowly, work_s=0.05)
    ids = commit(postgres_database, 400)
    eventually(lambda: sum(send.pid == sleeper.pid for send in fleet.sends()) >= 3)
    sleeper.freeze()
    await_takeover(postgres_database, peer, time.monotonic())
    await_settled(postgres_database, ids)
    assert_woken_without_harm(fleet, postgres_database, sleeper, peer, ids)


def test_an_answer_that_waited_out_the_freeze_gives_no_right_to_send(postgres_database, fleet, wire):
    """The server answered before the session ended, the network lost the end, and the woken relay reads the answer."""
    slowly = {"log": {"listener": "support.recording:record", "concurrency": 1}}
    through = url_through(wire, postgres_database)
    sleeper, peer = start_pair(fleet, postgres_database, sleeper_url=through, destinations=slowly, work_s=0.05)
    ids = commit(postgres_database, 400)
    eventually(lambda: sum(send.pid == sleeper.pid for send in fleet.sends()) >= 3)
    wire.hold_the_answer_to(READ_READY)
    assert wire.is_holding.wait(30)
    sleeper.freeze()
    await_takeover(postgres_database, peer, time.monotonic())
    await_settled(postgres_database, ids)
    wire.pass_on_the_answer()
    woken_at = time.monotonic()
    sleeper.thaw()
    assert wire.is_holding.wait(30)
    eventually(lambda: time.monotonic() > woken_at + LEASE_S / 3, what="a relay in doubt has had time to send")
    assert [send for send in fleet.sends() if send.pid == sleeper.pid and send.at_s > woken_at] == []
    wire.release()
    assert_woken_without_harm(fleet, postgres_database, sleeper, peer, ids)


def test_a_relay_frozen_inside_a_transaction_is_ended_by_the_server(postgres_database, fleet):
    """With a window of eight, a key's fourth message is set aside: that is written in a transaction."""
    sleeper, peer = start_pair(fleet, postgres_database, page_size=8, window=8)
    backend = backend_of(postgres_database.url, sleeper)
    key = key_of(postgres_database, sleeper)
    fleet.hold_path.touch()
    with psycopg.connect(postgres_database.url) as blocker:
        blocker.execute("LOCK TABLE outbox_delivery IN EXCLUSIVE MODE")
        ids = commit(postgres_database, 8, key=key)
        eventually(lambda: backend_state(postgres_database, backend) == ("active", "Lock"))
        sleeper.freeze()
    eventually(lambda: backend_state(postgres_database, backend)[0] in ("idle in transaction", None))
    await_takeover(postgres_database, peer, time.monotonic())
    assert "peer_ended" not in peer.output, "the server itself ends a transaction that is idle for a lease"
    await_settled(postgres_database, ids)
    fleet.hold_path.unlink()
    assert_woken_without_harm(fleet, postgres_database, sleeper, peer, ids)


def test_a_relay_frozen_in_the_middle_of_a_message_is_ended_by_a_peer(postgres_database, fleet, wire):
    """No timeout of the server reaches a session that waits for the rest of a message."""
    sleeper, peer = start_pair(fleet, postgres_database, sleeper_url=url_through(wire, postgres_database))
    wire.hold_in_the_middle()
    assert wire.is_holding.wait(30)
    sleeper.freeze()
    frozen_at, seen_at = time.monotonic(), last_seen_at(postgres_database, sleeper)
    ids = commit(postgres_database, 200)
    taken_after_s = await_takeover(postgres_database, peer, frozen_at)
    assert_two_leases_after(postgres_database, seen_at)
    print(f"taken {taken_after_s:.1f} s after the freeze, with a lease of {LEASE_S:g} s")
    assert "peer_ended" in peer.output
    await_settled(postgres_database, ids)
    wire.release()
    assert_woken_without_harm(fleet, postgres_database, sleeper, peer, ids)


def key_of(database: Database, relay: Relay) -> str:
    """Return a key whose messages belong to this relay."""
    holds = owners(database.url)
    rows = database.rows("SELECT k, hashtextextended(k::text, 0) & 63 AS shard FROM generate_series(1, 1000) AS k")
    return next(str(row.k) for row in rows if holds[row.shard] == relay.pid)


def test_a_relay_frozen_while_it_receives_a_large_result_over_a_unix_socket_is_ended_by_a_peer(
    postgres_database, fleet
):
    """No timeout of the server reaches a session that waits for its client to read on."""
    sleeper, peer = start_pair(fleet, postgres_database, sleeper_url=socket_url(postgres_database))
    ids = freeze_in_a_large_result(postgres_database, sleeper)
    seen_at = last_seen_at(postgres_database, sleeper)
    taken_after_s = await_takeover(postgres_database, peer, time.monotonic())
    assert_two_leases_after(postgres_database, seen_at)
    print(f"taken {taken_after_s:.1f} s after the freeze, with a lease of {LEASE_S:g} s")
    assert "peer_ended" in peer.output
    await_settled(postgres_database, ids)
    assert_woken_without_harm(fleet, postgres_database, sleeper, peer, ids)


def test_a_relay_frozen_while_it_receives_a_large_result_over_tcp_is_ended_by_the_server(postgres_database, fleet):
    sleeper, peer = start_pair(fleet, postgres_database)
    ids = freeze_in_a_large_result(postgres_database, sleeper)
    taken_after_s = await_takeover(postgres_database, peer, time.monotonic())
    print(f"taken {taken_after_s:.1f} s after the freeze, with a lease of {LEASE_S:g} s")
    assert "peer_ended" not in peer.output, "the server's kernel gives up a connection that takes nothing for a lease"
    await_settled(postgres_database, ids)
    assert_woken_without_harm(fleet, postgres_database, sleeper, peer, ids)


def test_a_relay_frozen_while_it_receives_an_error_is_ended_by_the_server(postgres_database, fleet):
    """A backend that is held up while it reports an error does not heed pg_terminate_backend."""
    sleeper, peer = start_pair(fleet, postgres_database)
    backend, key = backend_of(postgres_database.url, sleeper), key_of(postgres_database, sleeper)
    ids = commit(postgres_database, 1, key=key)
    await_settled(postgres_database, ids)  # now the statement is prepared, which takes locks too
    postgres_database.execute(
        "CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql SET log_min_messages = panic AS "
        f"$$ BEGIN RAISE EXCEPTION '%', repeat('x', {LARGE_BYTES}); END $$"
    )
    postgres_database.execute(
        "CREATE TRIGGER complain BEFORE INSERT ON outbox_history FOR EACH ROW "
        f"WHEN (pg_backend_pid() = {backend}) EXECUTE FUNCTION complain()"
    )
    with postgres_database.engine.connect() as blocker:
        blocker.execute(text("LOCK TABLE outbox_history IN EXCLUSIVE MODE"))
        ids |= commit(postgres_database, 8, key=key)
        eventually(lambda: backend_state(postgres_database, backend) == ("active", "Lock"))
        sleeper.freeze()
    eventually(lambda: wait_event(postgres_database, backend) == "ClientWrite", what="the error is on its way")
    taken_after_s = await_takeover(postgres_database, peer, time.monotonic())
    print(f"taken {taken_after_s:.1f} s after the freeze, with a lease of {LEASE_S:g} s")
    await_settled(postgres_database, ids)
    assert_woken_without_harm(fleet, postgres_database, sleeper, peer, ids)


def freeze_in_a_large_result(database: Database, sleeper: Relay) -> set[str]:
    """Freeze the relay when it has asked for more than all buffers hold; return the ids of what was committed."""
    backend, key = backend_of(database.url, sleeper), key_of(database, sleeper)
    ids = commit(database, 64)
    await_settled(database, ids)
    with database.engine.begin() as connection:  # after this one, a read does not leave out the data of large messages
        ids |= {medium := str(uuid.uuid4())}
        connection.execute(text(EMIT), {"id": medium, "key": key, "size": 1_000_000})
    await_settled(database, ids)
    large = eventually(lambda: freeze_asking(database, sleeper, backend, key), what="asks")
    eventually(lambda: wait_event(database, backend) == "ClientWrite", what="the server waits for it to read on")
    return ids | {large}


def freeze_asking(database: Database, sleeper: Relay, backend: int, key: str) -> str | None:
    """Freeze the relay while it reads, and commit more than all buffers hold; ``None`` if it asked something else."""
    with database.engine.connect() as blocker:
        message_id = str(uuid.uuid4())
        blocker.execute(text(EMIT), {"id": message_id, "key": key, "size": LARGE_BYTES})
        blocker.execute(text("LOCK TABLE outbox_message IN ACCESS EXCLUSIVE MODE"))
        eventually(lambda: backend_state(database, backend) == ("active", "Lock"))
        if READ_READY not in database.scalar("SELECT query FROM pg_stat_activity WHERE pid = :pid", pid=backend):
            return None
        sleeper.freeze()
        blocker.commit()
    return message_id


def wait_event(database: Database, backend: int) -> str | None:
    return database.scalar("SELECT wait_event FROM pg_stat_activity WHERE pid = :pid", pid=backend)


def socket_url(database: Database) -> str:
    """Return the database's URL over the server's Unix socket."""
    url = make_url(database.url)
    query = {"host": database.scalar("SHOW unix_socket_directories").split(",")[0], "port": str(url.port)}
    return url._replace(host=None, port=None).set(query=query).render_as_string(hide_password=False)


def test_a_relay_killed_while_the_server_works_for_it_leaves_nothing_behind(postgres_database, fleet):
    """The server would work and keep the locks for an hour, but it checks whether its client is alive."""
    killed, peer = start_pair(fleet, postgres_database)
    backend = backend_of(postgres_database.url, killed)
    postgres_database.execute(
        "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(3600); RETURN NEW; END $$"
    )
    postgres_database.execute(
        "CREATE TRIGGER take_long BEFORE INSERT ON outbox_history FOR EACH ROW "
        f"WHEN (pg_backend_pid() = {backend}) EXECUTE FUNCTION take_long()"
    )
    ids = commit(postgres_database, 200)
    eventually(lambda: wait_event(postgres_database, backend) == "PgSleep", what="the server works for it")
    killed.kill()
    taken_after_s = await_takeover(postgres_database, peer, time.monotonic())
    print(f"taken {taken_after_s:.1f} s after the kill, with a lease of {LEASE_S:g} s")
    await_settled(postgres_database, ids)
    assert {send.id for send in fleet.sends() if send.pid == peer.pid} == ids
