"""The crash guard: a message that may have killed a relay is noted, waits, and is tried alone; no other is charged."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from support.databases import Database
from support.scene import Scene, Taker, to
from support.waiting import eventually_async

from outbox import Message
from relay import ListenerSettings, Relay
from relay.databases.postgresql.store import ownership as postgres
from relay.databases.sqlite.store import ownership as sqlite
from relay.decide.failures.crashes import Accused, Record
from relay.delivery.crashes import guard


@pytest.fixture
def scene(database: Database, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(guard, "CALM_S", 0.05)
    return Scene(database)


class Crowd(Taker):
    """A slow listener that notes which messages were under way together."""

    def __init__(self) -> None:
        super().__init__()
        self.present: set[int] = set()
        self.alone: set[int] = set()
        self.most = 0

    async def __call__(self, message: Message) -> None:
        n = message.data["n"]
        self.note(message)
        self.alone -= self.present
        self.present.add(n)
        if len(self.present) == 1:
            self.alone.add(n)
        self.most = max(self.most, len(self.present))
        await asyncio.sleep(0.002)
        self.present.discard(n)
        self.take(message)


def ids(scene: Scene) -> list[str]:
    return [str(row.id) for row in scene.database.rows("SELECT id FROM outbox_message ORDER BY position")]


def leave_behind(scene: Scene, records: Mapping[int, Record] | None = None) -> None:
    """Leave the shards as if a relay that owned all of them had died."""
    scene.database.execute(f"UPDATE outbox_shard SET dirty = {_true(scene)}, owner = 'another-1-dead'")
    for shard, record in (records or {}).items():
        as_json = "CAST(:record AS jsonb)" if scene.kind == "postgres" else ":record"
        scene.database.execute(
            f"UPDATE outbox_shard SET started = {as_json} WHERE shard = :shard", record=record.dump(), shard=shard
        )


def _true(scene: Scene) -> str:
    return "true" if scene.kind == "postgres" else "1"


def record_of(scene: Scene, *started: str, accused: Mapping[str, Accused] | None = None) -> dict[int, Record]:
    """Return the crash records of the shards in which these were under way, or are accused."""
    records: dict[int, Record] = {}
    rows = scene.database.rows("SELECT id, shard FROM outbox_message")
    shard_of = {str(row.id): row.shard if row.shard is not None else 0 for row in rows}
    for message_id in started:
        records.setdefault(shard_of[message_id], Record()).started.add((message_id, "a"))
    for message_id, each in (accused or {}).items():
        records.setdefault(shard_of[message_id], Record()).accused[message_id, "a"] = each
    return records


def is_forgotten(scene: Scene) -> bool:
    return scene.database.scalar("SELECT count(*) FROM outbox_shard WHERE started IS NOT NULL") == 0


def attempts(scene: Scene) -> set[int]:
    return {row.attempts for row in scene.database.rows("SELECT attempts FROM outbox_history")}


async def test_what_a_dead_relay_may_have_had_is_noted_and_sent_as_many_at_once_as_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = watch_notes(monkeypatch)
    scene.emit(300)
    known = set(ids(scene))
    leave_behind(scene)
    crowd = Crowd()
    async with scene.relay({"a": to(crowd, concurrency=16)}):
        await scene.becomes(300, 0, 0, 0)
        assert {message_id for message_id, _ in noted} == known
        scene.emit(50)
        await scene.becomes(350, 0, 0, 0)
        assert {message_id for message_id, _ in noted} == known, "no relay held later messages"
        await eventually_async(lambda: is_forgotten(scene))
    assert crowd.most == 16
    assert attempts(scene) == {1}


def watch_notes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Record every delivery that is noted as started."""
    noted: set[tuple[str, str]] = set()
    for ownership in (postgres.Ownership, sqlite.Ownership):
        note = ownership.note

        def watched(self: Any, records: Mapping[int, str | None], note: Any = note) -> None:
            note(self, records)
            for record in records.values():
                noted.update(Record.parse(record).started)

        monkeypatch.setattr(ownership, "note", watched)
    return noted


async def test_while_every_owner_hands_back_nothing_is_noted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def note(*_: Any) -> None:
        raise AssertionError("a healthy relay wrote a note")

    monkeypatch.setattr(postgres.Ownership, "note", note)
    monkeypatch.setattr(sqlite.Ownership, "note", note)
    for _ in range(2):
        scene.emit(200)
        assert await scene.drain({"a": Taker(), "b": Taker()}) == 200


@pytest.mark.parametrize("keys", [None, 5], ids=["without keys", "with keys"])
async def test_what_was_under_way_when_a_relay_died_goes_later_alone_and_is_not_charged(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, keys: int | None
) -> None:
    monkeypatch.setattr(guard, "CALM_S", 3600)
    scene.emit_keys([f"k{n % keys}" if keys else None for n in range(100)])
    suspicious = [3, 4]
    all_ids = ids(scene)
    leave_behind(scene, record_of(scene, *(all_ids[n] for n in suspicious)))
    crowd = Crowd()
    others = 98 if keys is None else 60  # not those behind them
    async with scene.relay({"a": to(crowd, concurrency=8), "b": Taker()}) as relay:
        await eventually_async(lambda: len(crowd.taken) == others, what="others go first")
        assert set(suspicious).isdisjoint(crowd.tries)
        await eventually_async(lambda: scene.deliveries()["a", "retry"] == 2, what="both wait")
        let_calm_time_pass(scene, relay)
        await scene.becomes(100, 0, 0, 0)
        await eventually_async(lambda: is_forgotten(scene))
    assert set(suspicious) <= crowd.alone
    if keys is not None:
        assert all(taken == sorted(taken) for taken in crowd.taken_of_key.values())
    assert set(crowd.tries.values()) == {1}
    assert attempts(scene) == {1}


def let_calm_time_pass(scene: Scene, relay: Relay) -> None:
    """Let the time pass for which accused deliveries wait."""
    running: Any = relay._running
    running.loop_side.dispatcher.crash_guard._calm_from = 0.0
    past = "clock_timestamp()" if scene.kind == "postgres" else "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    scene.database.execute(f"UPDATE outbox_delivery SET due_at = {past} WHERE due_at IS NOT NULL")


@pytest.mark.parametrize("on_dead", ["block", "skip"])
async def test_a_convicted_message_is_a_dead_letter_that_is_never_sent(scene: Scene, on_dead: str) -> None:
    scene.emit_keys([f"k{n % 2}" for n in range(10)])
    guilty = ids(scene)[2]
    leave_behind(scene, record_of(scene, guilty, accused={guilty: Accused(2, alone=True)}))
    taker = Taker()
    async with scene.relay({"a": ListenerSettings(listener=taker, max_attempts=3, on_dead=on_dead)}):
        await scene.becomes(*((9, 0, 1, 0) if on_dead == "skip" else (6, 3, 1, 0)))
        await eventually_async(lambda: is_forgotten(scene))
    assert 2 not in taker.taken
    assert taker.taken_of_key["k0"] == ([0, 4, 6, 8] if on_dead == "skip" else [0])
    (dead,) = scene.database.rows("SELECT attempts, reason, log FROM outbox_delivery WHERE state = 'dead'")
    assert dead.attempts == 3
    assert "relays died of it: 3 in a row" in dead.reason
    log = dead.log if isinstance(dead.log, list) else json.loads(dead.log)
    assert [each["verdict"] for each in log] == ["dead"]


async def test_an_accused_message_that_fails_its_trial_is_charged_that_attempt_and_no_crash(scene: Scene) -> None:
    scene.emit(20)
    accused = ids(scene)[5]
    leave_behind(scene, record_of(scene, accused, accused={accused: Accused(8, alone=True)}))
    is_charged = False

    def fate(message: Message) -> None:
        nonlocal is_charged
        if message.id == accused:
            is_charged = message.attempt > 1
            if not is_charged:
                raise ValueError("not yet")

    async with scene.relay({"a": Taker(fate)}):
        # The listener takes newcomers, which convicts the one that failed.
        await eventually_async(lambda: scene.emit(1) and is_charged)
        await eventually_async(lambda: scene.status.waiting == 0)
    history = scene.database.rows("SELECT id, attempts FROM outbox_history WHERE attempts > 1")
    assert [(str(row.id), row.attempts) for row in history] == [(accused, 2)]


async def test_what_was_delivered_before_its_relay_died_is_accused_of_nothing(scene: Scene) -> None:
    scene.emit(5)
    leave_behind(scene, {0: Record(started={("0197c0de-0000-7000-8000-000000000000", "a")})})
    async with scene.relay({"a": Taker()}):
        await scene.becomes(5, 0, 0, 0)
        await eventually_async(lambda: is_forgotten(scene))


async def test_a_relay_that_stops_during_a_trial_hands_back_in_order(scene: Scene) -> None:
    scene.emit(20)
    accused, *others = ids(scene)
    leave_behind(scene, record_of(scene, accused))
    is_tried, may_end = asyncio.Event(), asyncio.Event()
    taken: list[str] = []

    async def listener(message: Message) -> None:
        if message.id == accused:
            is_tried.set()
            await may_end.wait()
        taken.append(message.id)

    async with scene.relay({"a": listener}) as relay:
        await is_tried.wait()
        scene.emit(20)  # which have to wait
        await eventually_async(lambda: scene.status.waiting > 20)
        relay.stop()
        may_end.set()
        await relay.wait()
    assert scene.database.scalar(f"SELECT count(*) FROM outbox_shard WHERE dirty = {_true(scene)}") == 0
    assert accused in taken
    assert set(taken) <= {accused, *others}
    assert await scene.drain({"a": Taker()}) == 40 - len(taken)
    assert attempts(scene) == {1}
