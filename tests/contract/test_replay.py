"""Delivered messages can be sent again, in order: to a new destination, under their ids or as new messages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.databases import Database
from support.scene import Outage, Scene, Taker, rejecting, to
from support.waiting import eventually_async

from outbox import Message
from outbox.errors import OutboxError
from outbox.tables import tables
from relay.admin.messages.dead import DeadFilter, discard, retry
from relay.admin.messages.detail import show_message
from relay.admin.messages.replay import FIRST_ID, Replay, _pages, look, replay


def count_in_history(scene: Scene) -> int:
    return scene.database.scalar("SELECT count(*) FROM outbox_history")


async def delivered(scene: Scene, count: int, **options: Any) -> Taker:
    """Deliver messages to `old`; `new` is registered and wants none of them."""
    taker = Taker()
    scene.emit(count, **options)
    await scene.drain({"old": taker, "new": _uninterested(Taker())})
    assert count_in_history(scene) >= count
    return taker


def _uninterested(taker: Any) -> Any:
    return to(taker, events=["nothing.like.it"])


async def test_a_replay_sends_the_past_to_the_new_destination_only(scene: Scene) -> None:
    old = await delivered(scene, 20)
    assert replay(scene.database.engine, Replay("new")) == 20
    assert scene.deliveries() == {("new", "parked"): 20}
    new = Taker()
    await scene.drain({"old": old, "new": _uninterested(new)})
    assert sorted(new.taken) == list(range(20))
    assert set(old.tries.values()) == {1}
    assert scene.deliveries() == {}
    assert scene.account == (40, 0, 0, 0)


async def test_a_running_relay_takes_up_what_is_replayed(scene: Scene) -> None:
    await delivered(scene, 5)
    new = Taker()
    async with scene.relay({"old": Taker(), "new": _uninterested(new)}) as relay:
        await relay.drain()
        replay(scene.database.engine, Replay("new"))
        await eventually_async(lambda: sorted(new.taken) == list(range(5)))


async def test_the_id_the_body_and_the_time_stay(scene: Scene) -> None:
    old = await delivered(scene, 1, ordering_key="k", headers={"tenant": "t"}, subject="s")
    got: list[Message] = []

    async def take(message: Message) -> None:
        got.append(message)

    replay(scene.database.engine, Replay("new"))
    await scene.drain({"old": old, "new": _uninterested(take)})
    (message,), (attempt,) = got, old.attempts
    assert (message.id, message.body, message.ordering_key) == (attempt.id, attempt.body, "k")
    assert (message.headers["tenant"], message.subject) == ("t", "s")
    assert "outbox-replay-of" not in message.headers


async def test_a_replay_as_new_makes_a_separate_message_that_names_the_old_one(scene: Scene) -> None:
    old = await delivered(scene, 3, headers={"tenant": "t"})
    got: list[Message] = []

    async def take(message: Message) -> None:
        got.append(message)

    assert replay(scene.database.engine, Replay("new", as_new=True)) == 3
    await scene.drain({"old": old, "new": _uninterested(take)})
    before = {attempt.id for attempt in old.attempts}
    assert {message.headers["outbox-replay-of"] for message in got} == before
    assert {message.headers["tenant"] for message in got} == {"t"}
    assert not before & {message.id for message in got}
    assert set(old.tries.values()) == {1}


async def test_only_what_is_asked_for_is_replayed(scene: Scene) -> None:
    await delivered(scene, 2, type="page.read")
    await delivered(scene, 3, type="page.written")
    await delivered(scene, 1, type="audit.kept")
    engine, hour = scene.database.engine, timedelta(hours=1)
    now = datetime.now(UTC)

    def count(**which: Any) -> int:
        with engine.connect() as connection:
            return sum(found.count for found in look(connection, Replay("new", **which)))

    assert count() == 6
    assert count(type_="page.*") == 5
    assert count(type_="page.rea_") == 0
    assert (count(since=now - hour), count(since=now + hour), count(until=now - hour)) == (6, 0, 0)
    assert replay(engine, Replay("new", type_="page.written", since=now - hour)) == 3
    assert scene.deliveries() == {("new", "parked"): 3}


async def test_a_discarded_message_was_never_delivered_and_is_not_replayed(scene: Scene) -> None:
    destinations = {"old": Taker(rejecting(1)), "new": _uninterested(Taker())}
    scene.emit(3)
    await scene.drain(destinations)
    assert discard(scene.database.engine, DeadFilter()) == 1
    await scene.drain(destinations)
    assert count_in_history(scene) == 3
    with scene.database.engine.connect() as connection:
        assert [found.count for found in look(connection, Replay("new"))] == [2]
    assert replay(scene.database.engine, Replay("new")) == 2
    assert scene.deliveries() == {("new", "parked"): 2}


async def test_what_an_operator_discarded_for_a_destination_is_not_replayed_to_it_though_another_took_it(
    scene: Scene,
) -> None:
    destinations = {"old": Taker(), "new": Taker(rejecting(1))}
    scene.emit(3)
    await scene.drain(destinations)
    assert discard(scene.database.engine, DeadFilter()) == 1
    await scene.drain(destinations)
    assert count_in_history(scene) == 3
    for to_whom, count in (("new", 2), ("old", 3)):
        with scene.database.engine.connect() as connection:
            assert [found.count for found in look(connection, Replay(to_whom))] == [count]
        assert replay(scene.database.engine, Replay(to_whom)) == count
    await scene.drain(destinations)  # now the history has an entry of it that does not mention "new"
    assert replay(scene.database.engine, Replay("new")) == 2


async def test_a_dry_run_says_how_many_the_inbox_knows_already(scene: Scene) -> None:
    old = await delivered(scene, 4)
    for attempt in old.attempts[:3]:
        scene.database.execute("INSERT INTO inbox_message (listener, message_id) VALUES ('new', :id)", id=attempt.id)
    with scene.database.engine.connect() as connection:
        (found,) = look(connection, Replay("new"))
    assert (found.type, found.count, found.marked) == ("page.read", 4, 3)
    assert found.first_at <= found.last_at <= datetime.now(UTC) + timedelta(seconds=5)
    assert scene.deliveries() == {}


def test_nothing_is_replayed_to_a_destination_that_is_not_registered(scene: Scene) -> None:
    with pytest.raises(OutboxError, match="there is no destination nowhere"):
        replay(scene.database.engine, Replay("nowhere"))


async def test_what_is_on_its_way_there_already_is_left_alone(scene: Scene) -> None:
    await delivered(scene, 4)
    assert replay(scene.database.engine, Replay("new")) == 4
    assert replay(scene.database.engine, Replay("new")) == 0
    new = Taker()
    await scene.drain({"old": Taker(), "new": _uninterested(new)})
    assert sorted(new.taken) == list(range(4))


async def test_a_message_that_is_being_replayed_can_be_replayed_to_another_destination_too(scene: Scene) -> None:
    old = await delivered(scene, 4)
    assert replay(scene.database.engine, Replay("new")) == 4
    assert replay(scene.database.engine, Replay("old")) == 4
    new = Taker()
    await scene.drain({"old": old, "new": _uninterested(new)})
    assert (sorted(new.taken), set(old.tries.values())) == ([0, 1, 2, 3], {2})
    assert count_in_history(scene) == 8


async def test_a_second_replay_sends_each_message_once_more_and_not_twice(scene: Scene) -> None:
    old = await delivered(scene, 4)
    new = Taker()
    for _ in range(2):
        assert replay(scene.database.engine, Replay("new")) == 4
        await scene.drain({"old": old, "new": _uninterested(new)})
    assert set(new.tries.values()) == {2}


async def test_a_replayed_message_goes_before_its_waiting_successors(scene: Scene) -> None:
    await delivered(scene, 2, ordering_key="k")
    taker = Taker()
    scene.emit(2, ordering_key="k")
    replay(scene.database.engine, Replay("old"))
    await scene.drain({"old": taker, "new": _uninterested(Taker())})
    assert taker.taken_of_key["k"] == [0, 1, 2, 3]


async def test_a_replayed_message_that_fails_is_a_dead_letter_like_any_other(scene: Scene) -> None:
    await delivered(scene, 2)
    replay(scene.database.engine, Replay("new"))
    destinations = {"old": Taker(), "new": _uninterested(Taker(rejecting(0)))}
    await scene.drain(destinations)
    assert scene.deliveries() == {("new", "dead"): 1}
    assert retry(scene.database.engine, DeadFilter()) == 1
    await scene.drain(destinations)
    assert discard(scene.database.engine, DeadFilter()) == 1
    await scene.drain(destinations)
    assert scene.deliveries() == {}
    assert scene.account == (3, 0, 0, 0)


async def test_a_verdict_on_an_earlier_life_does_not_match_a_later_one(scene: Scene) -> None:
    await delivered(scene, 1)
    generations = []
    for _ in range(2):
        replay(scene.database.engine, Replay("new"))
        generations.append(scene.database.scalar("SELECT generation FROM outbox_delivery"))
        await scene.drain({"old": Taker(), "new": _uninterested(Taker())})
    assert 0 < generations[0] < generations[1]


async def test_a_replay_goes_no_faster_than_it_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await delivered(scene, 25)
    monkeypatch.setattr("relay.admin.messages.replay.time.monotonic", lambda: 0.0)
    waits: list[float] = []
    said: list[int] = []
    count = replay(scene.database.engine, Replay("new"), rate=10, on_progress=said.append, wait=waits.append)
    assert (count, said) == (25, [10, 20, 25])
    assert waits == [1.0, 2.0, 2.5]


async def test_a_replay_is_one_line_in_the_audit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.admin.messages.replay.BATCH", 4)
    await delivered(scene, 10)
    replay(scene.database.engine, Replay("new", type_="page.*"), reason="reports were lost")
    (entry,) = [each for each in scene.audit() if each.action == "replay"]
    assert (entry.count, entry.reason) == (10, "reports were lost")
    assert entry.target == {"to": "new", "type": "page.*"}


async def test_a_replayed_message_shows_when_it_was_delivered_before(scene: Scene) -> None:
    old = await delivered(scene, 1)
    replay(scene.database.engine, Replay("new"))
    with scene.database.engine.connect() as connection:
        found = show_message(connection, old.attempts[0].id)
    assert found is not None
    assert (found.message.state, len(found.settled)) == ("held", 1)
    assert [(each.destination, each.state) for each in found.deliveries] == [("new", "parked")]


async def test_a_replay_to_a_destination_that_is_down_waits_for_it(scene: Scene) -> None:
    await delivered(scene, 10)
    outage = Outage()
    new = Taker(outage)
    async with scene.relay({"old": Taker(), "new": _uninterested(new)}):
        replay(scene.database.engine, Replay("new"))
        await eventually_async(lambda: outage.tries_while_down > 2)
        outage.down = False
        await eventually_async(lambda: sorted(set(new.taken)) == list(range(10)))
    assert scene.account[2] == 0


def test_on_sqlite_a_page_of_a_replay_is_read_in_the_order_of_the_ids(sqlite_database: Database) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    with sqlite_database.engine.connect() as connection:
        query = _pages(connection, Replay("a", since=at, until=at)).where(tables().history.c.id > FIRST_ID).limit(10)
        sql = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")]
    assert plan == [
        "SEARCH outbox_history USING INDEX outbox_history_id (id>?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH outbox_history_1 USING INDEX outbox_history_id (id=?)",
    ]
