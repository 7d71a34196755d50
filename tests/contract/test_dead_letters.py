"""Dead letters are found, understood, retried and discarded; the owner of their shard completes that."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import Database
from support.scene import Outage, Scene, Taker, failing, rejecting, to
from support.waiting import eventually_async

from outbox import Reject
from outbox.tables import SHARD_COUNT, tables
from relay.admin.access import transactions as writing
from relay.admin.messages.dead import DeadFilter, causes, count_dead, dead_letters, discard, retry
from relay.admin.messages.detail import show_message
from relay.databases.database import Database as Address
from relay.databases.sqlite.store.session import SqliteStore
from relay.databases.store.records import Batch, Ruled
from relay.databases.store.rows import Cursors
from relay.decide.outcome import fingerprint

ALL = DeadFilter()


def found(scene: Scene, which: DeadFilter = ALL) -> list[str]:
    """Return the reasons of dead letters, the latest first."""
    with scene.database.engine.connect() as connection:
        return [letter.reason for letter in dead_letters(connection, which, limit=1000)]


def bury(scene: Scene, count: int, *, destination: str = "a", reason: str = "refused", **options: Any) -> list[int]:
    """Write dead letters as a relay does, with consecutive ids and positions."""
    numbers = scene.emit(count, **options)
    ids = scene.ids()
    with scene.database.engine.begin() as connection:
        m = tables().message
        rows = connection.execute(sa.select(m).where(m.c.id.in_([ids[n] for n in numbers]))).all()
        connection.execute(sa.update(m).where(m.c.id.in_([row.id for row in rows])).values(state="held"))
        connection.execute(
            sa.insert(tables().delivery),
            [
                {
                    "message_id": row.id,
                    "destination": destination,
                    "shard": row.shard,
                    "position": row.position,
                    "ordering_key": row.ordering_key,
                    "state": "dead",
                    "attempts": 3,
                    "reason": reason,
                    "fingerprint": fingerprint(reason),
                }
                for row in rows
            ],
        )
    return numbers


# ------------------------------------------------------------------------------------------------------------ finding


def test_many_dead_letters_read_as_their_causes(scene: Scene) -> None:
    for n in range(20):
        bury(scene, 5, reason=f"rejected by app:take: content {n} does not exist")
    bury(scene, 7, reason="HTTP 422: 'title' is missing")
    bury(scene, 1, reason="HTTP 422: 'title' is missing", destination="b")
    with scene.database.engine.connect() as connection:
        found = causes(connection, ALL)
    assert [(cause.count, cause.destination) for cause in found] == [(100, "a"), (7, "a"), (1, "b")]
    assert "does not exist" in found[0].reason
    assert found[0].first_at < found[0].last_at
    assert found[1].fingerprint == found[2].fingerprint != found[0].fingerprint


def test_dead_letters_are_found_by_destination_type_age_reason_and_cause(scene: Scene) -> None:
    bury(scene, 1, reason="Refused: no such content")
    bury(scene, 1, reason="broken pipe", destination="b", type="audit.read")
    bury(scene, 1, reason="100% wrong", type="audit.written")
    old = DeadFilter(newer_than_s=60)
    assert Counter(found(scene)) == Counter(["Refused: no such content", "broken pipe", "100% wrong"])
    assert found(scene, DeadFilter(destination="b")) == ["broken pipe"]
    assert found(scene, DeadFilter(type_="audit.written")) == ["100% wrong"]
    assert len(found(scene, DeadFilter(type_="audit.*"))) == 2
    assert found(scene, DeadFilter(reason="NO SUCH")) == ["Refused: no such content"]
    assert found(scene, DeadFilter(reason="100%")) == ["100% wrong"]
    assert found(scene, DeadFilter(reason="%")) == ["100% wrong"]
    assert found(scene, DeadFilter(fingerprint=fingerprint("broken pipe")[:6])) == ["broken pipe"]
    assert found(scene, DeadFilter(type_="audit.*", destination="a")) == ["100% wrong"]
    assert len(found(scene, old)) == 3
    scene.database.execute(
        "UPDATE outbox_delivery SET changed_at = :at WHERE destination = 'b'", at=_stored(scene, hours=2)
    )
    assert found(scene, DeadFilter(older_than_s=3600)) == ["broken pipe"]
    assert "broken pipe" not in found(scene, old)
    with scene.database.engine.connect() as connection:
        assert count_dead(connection, old) == 2
        assert [cause.count for cause in causes(connection, DeadFilter(destination="b"))] == [1]


async def test_a_dead_letter_shows_each_attempt_with_its_time_and_reason(scene: Scene) -> None:
    scene.emit(2)
    taker = Taker(failing(0))
    async with scene.relay({"a": to(taker, max_attempts=3)}):
        await eventually_async(lambda: 1 in taker.taken)
        while scene.account != (1, 0, 1, 0):
            scene.emit(1)
            await eventually_async(lambda: len(taker.taken) == scene.count - 1)
            if scene.account[2]:
                break
    with scene.database.engine.connect() as connection:
        detail = show_message(connection, scene.ids()[0])
    assert detail is not None
    (delivery,) = detail.deliveries
    assert (delivery.state, delivery.attempts) == ("dead", 3)
    assert [entry["attempt"] for entry in delivery.log] == [1, 2, 3]
    assert [entry["verdict"] for entry in delivery.log] == ["retry", "retry", "dead"]
    assert all("not 0" in entry["reason"] for entry in delivery.log)
    times = [datetime.fromisoformat(entry["at"]) for entry in delivery.log]
    assert times == sorted(times)


# ------------------------------------------------------------------------------------------------------------ retrying


async def test_a_retried_dead_letter_is_delivered_by_the_running_relay_with_all_its_attempts_before_it(
    scene: Scene,
) -> None:
    fate = failing(0, times=1, error=Reject)
    taker = Taker(fate)
    scene.emit(3)
    async with scene.relay({"a": taker}):
        await scene.becomes(2, 0, 1, 0)
        assert retry(scene.database.engine, ALL, reason="the schema is fixed") == 1
        await scene.becomes(3, 0, 0, 0)
    assert taker.tries[0] == 2
    assert [attempt.number for attempt in taker.attempts if attempt.n == 0] == [1, 1]
    (entry,) = scene.audit()[-1:]
    assert (entry.action, entry.count, entry.reason) == ("dead retry", 1, "the schema is fixed")
    assert "@" in entry.actor


async def test_what_was_retried_while_no_relay_ran_is_delivered_by_the_next_one(scene: Scene) -> None:
    scene.emit(5)
    await scene.drain({"a": Taker(rejecting(1, 3))})
    assert scene.account == (3, 0, 2, 0)
    assert retry(scene.database.engine, ALL) == 2
    taker = Taker()
    await scene.drain({"a": taker})
    assert sorted(taker.taken) == [1, 3]
    assert scene.account == (5, 0, 0, 0)


async def test_a_retry_keeps_the_log_and_a_second_death_adds_to_it(scene: Scene) -> None:
    scene.emit(1)
    await scene.drain({"a": Taker(rejecting(0))})
    retry(scene.database.engine, ALL)
    await scene.drain({"a": Taker(rejecting(0))})
    with scene.database.engine.connect() as connection:
        detail = show_message(connection, scene.ids()[0])
    assert detail is not None
    assert [entry["verdict"] for entry in detail.deliveries[0].log] == ["dead", "dead"]


async def test_only_the_dead_letters_that_match_are_retried(scene: Scene) -> None:
    bury(scene, 3, reason="refused")
    bury(scene, 2, reason="broken")
    assert retry(scene.database.engine, DeadFilter(reason="broken")) == 2
    assert scene.deliveries() == {("a", "dead"): 3, ("a", "parked"): 2}
    one = scene.ids()[0]
    assert retry(scene.database.engine, DeadFilter(ids=(one,))) == 1
    assert retry(scene.database.engine, DeadFilter(ids=(one,))) == 0
    assert [entry.count for entry in scene.audit()] == [2, 1]
    assert scene.audit()[0].target == {"reason": "broken"}


async def test_a_retried_letter_goes_before_its_waiting_successors(scene: Scene) -> None:
    taker = Taker(failing(0, times=1, error=Reject))
    scene.emit(4, ordering_key="k")
    async with scene.relay({"a": taker}):
        await eventually_async(lambda: scene.deliveries() == {("a", "dead"): 1, ("a", "blocked"): 3})
        retry(scene.database.engine, ALL)
        await scene.becomes(4, 0, 0, 0)
    assert taker.taken_of_key["k"] == [0, 1, 2, 3]


def test_what_dies_again_while_the_retrying_goes_on_is_left_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.admin.messages.dead.BATCH", 2)
    bury(scene, 5)

    def die_again(count: int) -> None:
        scene.database.execute(
            "UPDATE outbox_delivery SET state = 'dead', changed_at = :at WHERE state = 'parked'",
            at=_stored(scene, hours=-1),
        )

    assert retry(scene.database.engine, ALL, on_progress=die_again) == 5


def test_a_verdict_from_before_the_retry_changes_nothing(scene: Scene) -> None:
    bury(scene, 1)
    retry(scene.database.engine, ALL)
    (row,) = scene.database.rows("SELECT generation, attempts, state, first_failed_at FROM outbox_delivery")
    assert tuple(row) == (1, 0, "parked", None)


def test_a_hundred_thousand_go_in_batches_and_say_how_far_they_are(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.admin.messages.dead.BATCH", 100)
    bury(scene, 1050)
    said: list[int] = []
    assert retry(scene.database.engine, ALL, on_progress=said.append) == 1050
    assert said == [*range(100, 1001, 100), 1050]
    assert [(entry.action, entry.count) for entry in scene.audit()] == [("dead retry", 1050)]


def test_an_interrupted_retry_is_on_record_with_what_it_did(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.admin.messages.dead.BATCH", 10)
    bury(scene, 50)

    def interrupt(count: int) -> None:
        if count == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retry(scene.database.engine, ALL, on_progress=interrupt)
    assert scene.deliveries() == {("a", "dead"): 20, ("a", "parked"): 30}
    assert [entry.count for entry in scene.audit()] == [30]


def test_a_batch_holds_its_locks_only_briefly() -> None:
    assert writing.BATCH <= 1000


# ---------------------------------------------------------------------------------------------------------- discarding


async def test_a_discarded_letter_is_history_and_says_so(scene: Scene) -> None:
    scene.emit(2)
    async with scene.relay({"a": Taker(rejecting(0)), "b": Taker()}):
        await scene.becomes(1, 0, 1, 0)
        assert discard(scene.database.engine, ALL, reason="a test") == 1
        await eventually_async(lambda: len(_history(scene)) == 2)
    rows = [json.loads(r[0]) if isinstance(r[0], str) else r[0] for r in _history(scene)]
    states = [{name: each["state"] for name, each in row.items()} for row in rows if row]
    assert states == [{"a": "discarded", "b": "delivered"}]
    assert [(entry.action, entry.reason) for entry in scene.audit()][-1] == ("dead discard", "a test")


async def test_discarding_lets_go_of_the_successors_of_the_key(scene: Scene) -> None:
    taker = Taker(rejecting(0))
    scene.emit(3, ordering_key="k")
    async with scene.relay({"a": taker}):
        await eventually_async(lambda: scene.deliveries() == {("a", "dead"): 1, ("a", "blocked"): 2})
        discard(scene.database.engine, ALL)
        await scene.becomes(2, 0, 0, 0)
    assert taker.taken_of_key["k"] == [1, 2]


async def test_what_was_discarded_while_no_relay_ran_is_finished_by_the_next_one(scene: Scene) -> None:
    scene.emit(3, ordering_key="k")
    scene.emit(2)
    await scene.drain({"a": Taker(rejecting(0, 4))})
    assert scene.account == (1, 2, 2, 0)
    assert discard(scene.database.engine, ALL) == 2
    taker = Taker()
    async with scene.relay({"a": taker}):
        await scene.becomes(3, 0, 0, 0)
    assert taker.taken == [1, 2]


async def test_more_discarded_letters_than_a_batch_are_all_finished(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(scene, 1200)
    assert discard(scene.database.engine, ALL) == 1200
    async with scene.relay({"a": Taker()}):
        await eventually_async(lambda: scene.deliveries() == {})
    assert (scene.account, scene.status.discarded) == ((0, 0, 0, 0), 1200)


async def test_a_message_waits_for_its_other_destinations_when_one_is_discarded(scene: Scene) -> None:
    bury(scene, 1)
    sibling = "SELECT message_id, 'b', shard, position, 'parked' FROM outbox_delivery"
    scene.database.execute(f"INSERT INTO outbox_delivery (message_id, destination, shard, position, state) {sibling}")
    outage = Outage()
    async with scene.relay({"a": Taker(), "b": Taker(outage)}):
        discard(scene.database.engine, ALL)
        await eventually_async(lambda: outage.tries_while_down > 3)
        assert scene.account == (0, 1, 0, 0)
        outage.down = False
        await scene.becomes(1, 0, 0, 0)


def test_a_stamp_is_above_those_that_left_with_their_rows(sqlite_database: Database) -> None:
    """The last stamped row may be settled before the owner polls again; the owner still remembers the stamp."""
    scene = Scene(sqlite_database)
    bury(scene, 2)
    first, second = (scene.ids()[n] for n in (0, 1))
    session = SqliteStore(Address.parse(sqlite_database.url), keep_history=True).open("relay")
    try:
        session.ownership.take(range(SHARD_COUNT))
        cursors = Cursors(dict.fromkeys(range(SHARD_COUNT), 0))
        retry(scene.database.engine, DeadFilter(ids=(first,)))
        assert session.reading.read_ready(cursors, 10).unparked == {"a"}
        session.settling.settle(Batch([], [Ruled(first, "a", "delivered", 1, 0, 0.0, None, None)]))
        retry(scene.database.engine, DeadFilter(ids=(second,)))
        assert session.reading.read_ready(cursors, 10).unparked == {"a"}
    finally:
        session.close()


def _history(scene: Scene) -> list[Any]:
    return scene.database.rows("SELECT deliveries FROM outbox_history")


def _stored(scene: Scene, *, hours: float) -> Any:
    at = datetime.now(UTC) - timedelta(hours=hours)
    return at if scene.kind == "postgres" else at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
