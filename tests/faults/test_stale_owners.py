"""What a relay still holds of shards that it has lost: it may record what was delivered, and nothing else."""

import asyncio
from collections.abc import Collection

import pytest
from support.fleet import backend_of, owners, shard_counts
from support.recording import of
from support.scene import Scene, Taker, to
from support.waiting import eventually, eventually_async
from support.wire import url_through

from outbox import Draft, Message, emit, emit_many
from relay.databases.store.records import Batch, Ruled
from relay.owner.startup import open_store
from relay.settings import Settings

TWO = {"log": {"listener": "support.recording:record"}, "log-too": {"listener": "support.recording:record_too"}}


def test_shards_change_hands_although_a_destination_is_down(postgres_database, fleet):
    """An attempt that fails after its shard was asked for does not keep the shard: the next owner tries it again."""
    fleet.configure(postgres_database.url, destinations=TWO, beat_s=0.2)
    first = fleet.start()
    eventually(lambda: shard_counts(postgres_database.url)[first.pid] == 64)
    fleet.hold_path.touch()
    fleet.fail_path.touch()
    ids = commit_in(postgres_database, range(32, 64), 16)  # which a relay hands back when a second one comes
    eventually(lambda: len(of("log", fleet.sends())) == 16, deadline_s=30, what="all are under way")
    second = fleet.start()
    await_handing_over(postgres_database, first)
    fleet.hold_path.unlink()
    eventually(lambda: shard_counts(postgres_database.url) == {first.pid: 32, second.pid: 32})
    ids |= commit(postgres_database, 200)
    eventually(lambda: {send.id for send in of("log-too", fleet.sends())} == ids, what="the other destination has all")
    fleet.fail_path.unlink()
    eventually(lambda: settled(postgres_database) == ids, deadline_s=60, what="everything is settled")


def commit_in(database, shards: Collection[int], count: int) -> set[str]:
    """Commit messages in any of these shards, each with a key of its own."""
    of_keys = "SELECT k, hashtextextended(k::text, 0) & 63 AS shard FROM generate_series(1, 1000) AS k"
    keys = [row.k for row in database.rows(of_keys) if row.shard in shards][:count]
    with database.engine.begin() as connection:
        drafts = [Draft("extraction.completed", {"n": key}, ordering_key=str(key)) for key in keys]
        return set(emit_many(connection, drafts))


def await_handing_over(database, relay) -> None:
    """Wait until a peer lacks shards, and for two beats more: by then the relay has seen it and released them."""
    eventually(lambda: database.scalar("SELECT max(wants) FROM outbox_relay") > 0)
    beats = set()

    def has_beaten_twice() -> bool:
        beats.add(database.scalar("SELECT last_seen_at FROM outbox_relay WHERE id LIKE :id", id=f"%-{relay.pid}-%"))
        return len(beats) > 2

    eventually(has_beaten_twice)


def test_what_fails_after_its_session_ended_is_not_sent_again_by_a_former_owner(postgres_database, fleet, wire):
    wide = {"log": {"listener": "support.recording:record", "concurrency": 32}}
    fleet.configure(postgres_database.url, destinations=wide, beat_s=0.2)
    first = fleet.start(env={"DATABASE_URL": url_through(wire, postgres_database)})
    eventually(lambda: shard_counts(postgres_database.url)[first.pid] == 64)
    second = fleet.start(env={"RECORD_HOLD_PATH": ""})
    eventually(lambda: shard_counts(postgres_database.url) == {first.pid: 32, second.pid: 32})
    fleet.hold_path.touch()
    of_first = {shard for shard, pid in owners(postgres_database.url).items() if pid == first.pid}
    hanging = commit_in(postgres_database, of_first, 16)  # so many consecutive failures are the destination's
    ids = hanging | commit(postgres_database, 16)
    under_way = eventually(lambda: settled_but(postgres_database, ids, fleet, first.pid), what="the first one's hang")
    assert hanging <= under_way
    wire.hold_questions()
    backend = backend_of(postgres_database.url, first)
    postgres_database.execute("SELECT pg_terminate_backend(:pid)", pid=backend)
    eventually(lambda: settled(postgres_database) == ids, what="the second one has delivered them")
    fleet.fail_path.touch()
    fleet.hold_path.unlink()
    eventually(lambda: "destination_down" in first.output)
    fleet.fail_path.unlink()
    wire.release()
    eventually(lambda: shard_counts(postgres_database.url) == {first.pid: 32, second.pid: 32})
    ids |= commit(postgres_database, 64)
    eventually(lambda: settled(postgres_database) == ids, what="both go on")
    sends = fleet.sends()
    assert [send.n for send in sends if send.pid == first.pid and send.id in under_way][len(under_way) :] == []
    assert {send.pid for send in sends[-64:]} == {first.pid, second.pid}


def settled_but(database, ids: set[str], fleet, pid: int) -> set[str]:
    """Return the deliveries under way at a relay, after all others are settled."""
    under_way = {send.id for send in fleet.sends() if send.pid == pid}
    return under_way if settled(database) | under_way == ids else set()


def test_a_former_owner_revives_no_dead_letter(postgres_database, fleet, wire, tmp_path):
    """One destination took the message, the other had not answered; the successor's attempt there was refused."""
    fleet.configure(postgres_database.url, destinations=TWO, beat_s=0.2)
    first = fleet.start(env={"DATABASE_URL": url_through(wire, postgres_database)})
    eventually(lambda: shard_counts(postgres_database.url)[first.pid] == 64)
    fleet.hold_path.touch()
    commit(postgres_database, 1)
    eventually(lambda: len(fleet.sends()) == 2, what="one is taken, the other hangs")
    wire.hold_questions()
    refusal = tmp_path / "reject"
    refusal.touch()
    second = fleet.start(env={"RECORD_HOLD_PATH": "", "RECORD_REJECT_PATH": str(refusal)})
    postgres_database.execute("SELECT pg_terminate_backend(:pid)", pid=backend_of(postgres_database.url, first))
    dead = "SELECT count(*) FROM outbox_delivery WHERE destination = 'log' AND state = 'dead'"
    eventually(lambda: postgres_database.scalar(dead) == 1, what="the second one was refused")
    written = "SELECT changed_at FROM outbox_delivery WHERE destination = 'log-too'"
    before = postgres_database.scalar(written)
    fleet.fail_path.touch()
    fleet.hold_path.unlink()
    wire.release()
    eventually(lambda: postgres_database.scalar(written) != before, what="the first one says what it knows")
    assert postgres_database.scalar(dead) == 1
    assert second.is_running


@pytest.mark.parametrize("state", ["dead", "retry", "delivered"])
def test_a_former_owner_overwrites_no_verdict_on_a_delivery_that_it_knows_nothing_about(postgres_database, state):
    """It knows that one destination took the message; only its successor knows about the other destination."""
    settings = Settings(database_url=postgres_database.url)
    with postgres_database.engine.begin() as connection:
        message_id = emit(connection, "extraction.completed", {"n": 1}, ordering_key="k")
    successor = open_store(settings).open("successor")
    try:
        successor.ownership.take(range(64))
        successor.settling.settle(
            Batch([(message_id, 0)], [ruled(message_id, "log", "retry"), ruled(message_id, "api", state)])
        )
        former = open_store(settings).open("former")
        try:
            former.settling.settle(
                Batch([(message_id, 0)], [ruled(message_id, "log", "delivered"), unknown(message_id, "api")])
            )
        finally:
            former.close()
    finally:
        successor.close()
    found = {row.destination: row.state for row in postgres_database.rows("SELECT * FROM outbox_delivery")}
    assert found == ({} if state == "delivered" else {"log": "delivered", "api": state})


def ruled(message_id: str, destination: str, state: str) -> Ruled:
    charged = state in ("dead", "retry")
    return Ruled(message_id, destination, state, 0, int(charged), 60.0, "it failed" if charged else None, None)


def unknown(message_id: str, destination: str) -> Ruled:
    return Ruled(message_id, destination, "parked", 0, 0, 0.0, None, None, is_unknown=True)


def commit(database, count: int) -> set[str]:
    with database.engine.begin() as connection:
        return set(emit_many(connection, [("extraction.completed", {"n": n}) for n in range(count)]))


def settled(database) -> set[str]:
    return {str(row.id) for row in database.rows("SELECT id FROM outbox_history")}


async def test_what_another_owner_set_aside_is_not_lost_behind_an_attempt_of_a_former_session(postgres_database):
    """The relay read it back while that was under way, and used to drop it, because it already held the message."""
    scene = Scene(postgres_database)
    resumed, freed = asyncio.Event(), asyncio.Event()
    tried: set[int] = set()

    async def hang_and_fail_once(message: Message) -> None:
        if (n := message.data["n"]) not in tried:
            tried.add(n)
            await resumed.wait()
            raise ConnectionError

    async def hang(message: Message) -> None:
        await freed.wait()

    scene.emit(60)
    wide = {"a": to(hang_and_fail_once, concurrency=100, timeout_s=60), "b": Taker()}
    narrow = {"a": to(hang, concurrency=2, timeout_s=60), "b": Taker()}
    async with scene.relay(wide) as first:
        await eventually_async(lambda: len(tried) == 60, what="all are under way")
        session = postgres_database.scalar("SELECT backend_pid FROM outbox_relay")
        async with scene.relay(narrow, window=8):
            await eventually_async(lambda: postgres_database.scalar("SELECT count(*) FROM outbox_relay") == 2)
            postgres_database.scalar("SELECT pg_terminate_backend(:pid)", pid=session)
            await eventually_async(lambda: scene.deliveries()["a", "parked"] > 40, what="the other sets them aside")
            await eventually_async(lambda: first.health().owns > 25, what="the first one owns again")
            await asyncio.sleep(0.5)  # and it has read them back
            resumed.set()
            freed.set()
            await scene.becomes(60, 0, 0, 0)
