"""A relay regularly sweeps for deliveries that nothing else would move, and no other work waits for it."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from support.scene import Scene, Taker, rejecting, to
from support.stepping import Stage
from support.waiting import eventually_async

import relay.owner.sweeper
from outbox.tables import SHARD_COUNT
from relay.admin.messages.dead import DeadFilter, discard
from relay.databases.postgresql.sql import sweeping as postgres_sql
from relay.databases.sqlite.sql import sweeping as sqlite_sql


def set_aside(scene: Scene, count: int, state: str = "blocked", *, ago: str = "1 day") -> None:
    """Commit messages of a key, each with a delivery that has been in this state for the given time."""
    at = f"now() - interval '{ago}'" if scene.kind == "postgres" else f"datetime('now', '-{ago}')"
    with scene.database.engine.begin() as connection:
        scene.emit_into(connection, count, ordering_key="k")
        connection.exec_driver_sql(
            "INSERT INTO outbox_delivery "
            "(message_id, destination, shard, position, ordering_key, state, reason, changed_at) "
            f"SELECT id, 'a', shard, position, 'k', '{state}', 'why', {at} FROM outbox_message "
            "WHERE state = 'ready'"
        )
        connection.exec_driver_sql("UPDATE outbox_message SET state = 'held' WHERE state = 'ready'")


async def test_a_delivery_that_is_blocked_behind_nothing_is_delivered_by_the_relay_that_owns_it(scene: Scene) -> None:
    taker = Taker()
    async with scene.relay({"a": taker}) as relay:
        await eventually_async(lambda: relay.health().owns == SHARD_COUNT)
        await relay.drain()
        set_aside(scene, 3)
        await scene.becomes(3, 0, 0, 0)
    assert taker.taken == [0, 1, 2]


async def test_a_drain_delivers_messages_that_a_former_owner_left_blocked_or_unfinished(scene: Scene) -> None:
    taker = Taker(rejecting(0))
    scene.emit(3, ordering_key="d")
    await scene.drain({"a": taker})
    set_aside(scene, 700, ago="0 seconds")
    discard(scene.database.engine, DeadFilter())
    await scene.drain({"a": taker})
    assert scene.account == (702, 0, 0, 0), "702 were delivered or discarded"
    assert taker.taken_of_key["d"] == [1, 2]
    assert taker.taken_of_key["k"] == list(range(3, 703))


async def test_newcomers_of_a_key_queue_behind_what_was_not_looked_at_yet(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_slices(monkeypatch)
    set_aside(scene, 40)
    scene.emit(10, ordering_key="k")
    taker = Taker()
    async with scene.relay({"a": to(taker, concurrency=8)}):
        scene.emit(10, ordering_key="k")
        await scene.becomes(60, 0, 0, 0)
    assert taker.taken_of_key["k"] == list(range(60))


async def test_many_that_were_discarded_at_once_are_finished_by_a_relay_that_runs(scene: Scene) -> None:
    set_aside(scene, 1200, "dead")
    async with scene.relay({"a": Taker()}) as relay:
        await relay.drain()
        discard(scene.database.engine, DeadFilter())
        history = "SELECT count(*) FROM outbox_history"
        await eventually_async(lambda: scene.database.scalar(history) == 1200, deadline_s=30)


def in_small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.owner.sweeper, "SLICES_S", 0)
    monkeypatch.setattr(postgres_sql, "PAGES", 1)
    monkeypatch.setattr(sqlite_sql, "SLICE_END", sqlite_sql.SLICE_END.replace(str(sqlite_sql.ROWS), "30"))
    monkeypatch.setattr(sqlite_sql, "ROWS", 30)


def test_between_two_slices_of_what_was_taken_all_shards_are_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_slices(monkeypatch)
    set_aside(scene, 400)

    async def send(*_: Any) -> Any:
        await asyncio.Event().wait()

    stage = Stage(send)
    try:
        stepped = stage.start(scene.settings({"a": to(Taker())}))
        calls: list[str] = []
        while calls.count("sweep") < 5 and len(calls) < 500:
            calls.append(stepped.store.baton.at)
            stepped.step()
            stage.spin()
            stage.pass_time(0.1)
    finally:
        stage.close()
    slices = [n for n, call in enumerate(calls) if call == "sweep"]
    assert len(slices) == 5, calls
    assert all("read_ready" in calls[a:b] for a, b in pairwise(slices)), calls
