"""What a relay delivers, to whom, and how often: through the public API, on both databases."""

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from support.databases import Database
from support.scene import Outage, Scene, Taker, failing, rejecting, to
from support.waiting import eventually_async

from outbox import Message, emit
from outbox.errors import ConfigurationDiffers
from relay.databases.postgresql.store import reading
from relay.owner.session_loop import SessionLoop
from relay.relay import Relay


@pytest.fixture
def taker() -> Taker:
    return Taker()


async def test_everything_is_delivered_once_and_then_history(scene: Scene, taker: Taker) -> None:
    scene.emit(250)
    assert await scene.drain({"a": taker}) == 250
    assert sorted(taker.taken) == list(range(250))
    assert scene.account == (250, 0, 0, 0)


async def test_draining_an_empty_outbox_returns_at_once(scene: Scene, taker: Taker) -> None:
    assert await scene.drain({"a": taker}) == 0


async def test_a_drain_ends_when_every_shard_was_begun(
    scene: Scene, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "QUICK_S", 0.0)
    scene.emit(3)
    assert await scene.drain({"a": taker}) == 3


async def test_a_running_relay_delivers_what_is_committed_while_it_runs(scene: Scene, taker: Taker) -> None:
    async with scene.relay({"a": taker}):
        for _ in range(5):
            scene.emit(3)
            await eventually_async(lambda: len(taker.taken) == scene.count)
    assert sorted(taker.taken) == list(range(15))


async def test_a_message_reaches_the_listener_as_it_was_written(scene: Scene) -> None:
    got: list[Message] = []

    async def listener(message: Message) -> None:
        got.append(message)

    with scene.database.engine.begin() as connection:
        message_id = emit(
            connection, "page.read", {"ü": [1, None, 2.5]}, subject="s", ordering_key="k", headers={"tenant": "t"}
        )
    await scene.drain({"a": listener})
    (message,) = got
    assert (message.id, message.type, message.source) == (message_id, "page.read", "outbox")
    assert (message.subject, message.ordering_key, message.attempt) == ("s", "k", 1)
    assert message.data == {"ü": [1, None, 2.5]}
    assert message.headers["tenant"] == "t"
    assert abs(message.created_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_every_attempt_of_a_message_has_one_id_and_one_body(scene: Scene) -> None:
    taker = Taker(failing(0, times=3))
    scene.emit(1)
    async with scene.relay({"a": taker}):
        await scene.becomes(1, 0, 0, 0)
    assert len({(attempt.id, attempt.body) for attempt in taker.attempts}) == 1
    assert taker.tries == {0: 4}


async def test_a_rolled_back_emit_is_never_delivered(scene: Scene, taker: Taker) -> None:
    async with scene.relay({"a": taker}) as relay:
        with scene.database.engine.connect() as connection:
            scene.emit_into(connection, 3)
            connection.rollback()
        kept = scene.emit(2)
        await eventually_async(lambda: len(taker.taken) >= 2)
        await relay.drain()
    assert sorted(taker.taken) == kept
    assert scene.account == (2, 0, 0, 0)


async def test_what_commits_late_behind_an_open_transaction_is_delivered_after_its_commit(
    postgres_database: Database, taker: Taker
) -> None:
    scene = Scene(postgres_database)
    async with scene.relay({"a": taker}):
        with scene.database.engine.connect() as slow:
            (late,) = scene.emit_into(slow, 1)
            others = scene.emit(50)
            await eventually_async(lambda: sorted(taker.taken) == others)
            slow.commit()
        await eventually_async(lambda: sorted(taker.taken) == [late, *others])
    assert scene.account == (51, 0, 0, 0)


async def test_more_messages_than_the_window_are_all_delivered(scene: Scene, taker: Taker) -> None:
    scene.emit(500)
    assert await scene.drain({"a": taker}, window=16, page_size=8) == 500
    assert sorted(taker.taken) == list(range(500))


async def test_messages_of_more_bytes_than_a_page_are_all_delivered(scene: Scene, taker: Taker) -> None:
    scene.emit(20, pad=200_000)
    assert await scene.drain({"a": taker}) == 20
    assert sorted(taker.taken) == list(range(20))


async def test_a_restarted_relay_picks_up_everything_and_repeats_nothing(scene: Scene, taker: Taker) -> None:
    scene.emit(40)
    await scene.drain({"a": taker})
    scene.emit(40)
    await scene.drain({"a": taker})
    assert sorted(taker.taken) == list(range(80))
    assert set(taker.tries.values()) == {1}


async def test_an_orderly_stop_loses_nothing_and_repeats_nothing(scene: Scene) -> None:
    taker = Taker()

    class Slow(Taker):
        async def __call__(self, message: Message) -> None:
            taker.note(message)
            await asyncio.sleep(0.001)
            taker.take(message)

    scene.emit(300)
    for enough in (30, 100, 200):
        async with scene.relay({"a": Slow()}):
            await eventually_async(lambda enough=enough: len(taker.taken) >= enough)
        assert scene.account[0] == len(taker.taken)
        assert scene.account[1] == 300 - len(taker.taken)
    await scene.drain({"a": Slow()})
    assert sorted(taker.taken) == list(range(300))
    assert set(taker.tries.values()) == {1}


async def test_an_orderly_stop_waits_for_what_is_under_way_and_settles_it(scene: Scene) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def listener(message: Message) -> None:
        begun.set()
        await go_on.wait()

    scene.emit(1)
    async with scene.relay({"a": listener}) as relay:
        await begun.wait()
        relay.stop()
        go_on.set()
    assert scene.account == (1, 0, 0, 0)


async def test_what_outlasts_the_grace_of_a_stop_is_delivered_again(scene: Scene, taker: Taker) -> None:
    begun = asyncio.Event()

    async def listener(message: Message) -> None:
        begun.set()
        await asyncio.Event().wait()

    scene.emit(1)
    async with scene.relay({"a": listener}, grace_s=0.05):
        await begun.wait()
    assert scene.account == (0, 1, 0, 0)
    assert await scene.drain({"a": taker}) == 1


async def test_a_stop_that_waits_for_a_listener_sleeps_meanwhile(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, turns = SessionLoop.turn, []
    monkeypatch.setattr(SessionLoop, "turn", lambda session_loop: turns.append(session_loop) or turn(session_loop))
    begun = asyncio.Event()

    async def listener(message: Message) -> None:
        begun.set()
        await asyncio.sleep(60)

    scene.emit()
    async with scene.relay({"a": to(listener)}, grace_s=0.5):
        await begun.wait()
        turns.clear()
    assert 0 < len(turns) < 500, "a poll of 4 ms makes some 125"


# ------------------------------------------------------ which destination gets what


async def test_every_destination_gets_what_it_wants_and_nothing_else(scene: Scene) -> None:
    pages, reads, everything = Taker(), Taker(), Taker()
    a, b, c = (scene.emit(3, type=type) for type in ("page.read", "page.written", "book.read"))
    destinations = {
        "pages": to(pages, events=["page.*"]),
        "reads": to(reads, events=["page.read", "book.rea?"]),
        "all": to(everything),
    }
    assert await scene.drain(destinations) == 9
    assert sorted(pages.taken) == [*a, *b]
    assert sorted(reads.taken) == [*a, *c]
    assert sorted(everything.taken) == [*a, *b, *c]
    assert scene.account == (9, 0, 0, 0)


async def test_each_of_two_destinations_has_its_own_fate(scene: Scene) -> None:
    fine, fussy = Taker(), Taker(lambda message: (failing(3)(message), rejecting(5)(message)))
    scene.emit(20)
    async with scene.relay({"fine": fine, "fussy": to(fussy, max_attempts=3)}) as relay:
        while scene.status.dead < 2:
            await relay.drain()
            scene.emit(1)
        await relay.drain()
        await scene.becomes(scene.count - 2, 0, 2, 0)
    assert sorted(fine.taken) == list(range(scene.count))
    assert set(fine.tries.values()) == {1}
    assert sorted(fussy.taken) == [n for n in range(scene.count) if n not in (3, 5)]
    assert (fussy.tries[3] >= 3, fussy.tries[5]) == (True, 1)
    assert scene.deliveries() == {("fine", "delivered"): 2, ("fussy", "dead"): 2}


async def test_what_one_destination_took_is_counted_when_another_refused_it(scene: Scene) -> None:
    scene.emit(6)
    async with scene.relay({"fine": Taker(), "fussy": Taker(rejecting(2))}) as relay:
        await relay.drain()
        await scene.becomes(5, 0, 1, 0)
        # The relay counts a verdict shortly after its settlement can be read, and before it ends.
    page = relay.metrics.text().decode()
    assert 'outbox_deliveries_total{destination="fine",verdict="delivered"} 6.0' in page
    assert 'outbox_deliveries_total{destination="fussy",verdict="delivered"} 5.0' in page
    assert 'outbox_deliveries_total{destination="fussy",verdict="dead"} 1.0' in page


@pytest.mark.parametrize(("notify", "by"), [(True, "notify"), (False, "poll")])
async def test_what_wakes_a_sleeping_relay_up_is_counted(
    postgres_database: Database, taker: Taker, notify: bool, by: str
) -> None:
    """The count shows when notifications no longer arrive."""
    scene = Scene(postgres_database)
    poll_s = 60 if notify else 0.05
    # A beat reads, too.
    async with scene.relay({"a": taker}, notify=notify, slow_poll_s=poll_s, beat_s=poll_s, lease_s=180) as relay:
        scene.emit(1)
        await scene.becomes(1, 0, 0, 0)
        before = wake_ups(relay)
        heard = relay._running.heard  # type: ignore[union-attr]
        await eventually_async(lambda: heard.is_asleep and heard._sleeps_long)
        scene.emit(1)
        await scene.becomes(2, 0, 0, 0)
        assert wake_ups(relay) - before == Counter({by: 1})


def wake_ups(relay: Relay) -> Counter[str]:
    found = re.findall(r'outbox_wake_ups_total{by="(\w+)"} (\d+)', relay.metrics.text().decode())
    return Counter({by: int(count) for by, count in found})


async def test_a_type_without_a_subscription_waits_until_one_is_added(scene: Scene, taker: Taker) -> None:
    wanted, unwanted = scene.emit(3, type="page.read"), scene.emit(3, type="book.read")
    assert await scene.drain({"a": to(taker, events=["page.*"])}) == 3
    assert scene.account == (3, 0, 0, 3)
    await scene.drain({"a": to(taker, events=["page.*"])})
    assert sorted(taker.taken) == wanted
    assert await scene.drain({"a": to(taker, events=["page.*", "book.*"])}, apply=True) == 3
    assert sorted(taker.taken) == [*wanted, *unwanted]
    assert scene.account == (6, 0, 0, 0)


async def test_unwanted_messages_hold_up_nothing(scene: Scene, taker: Taker) -> None:
    scene.emit(200, type="book.read", ordering_key="k")
    wanted = scene.emit(20, ordering_key="k")
    assert await scene.drain({"a": to(taker, events=["page.*"])}, window=16, page_size=8) == 20
    assert taker.taken == wanted
    assert scene.account == (20, 0, 0, 200)


@pytest.mark.parametrize(
    "other",
    [
        {"b": to(Taker())},
        {"a": to(Taker()), "b": to(Taker())},
        {"a": to(Taker(), events=["page.*"])},
        {"a": to(Taker(), on_dead="skip")},
    ],
    ids=["renamed", "more", "other events", "other policy"],
)
async def test_a_relay_that_is_configured_differently_owns_nothing_and_says_where_it_differs(
    scene: Scene, taker: Taker, other: dict[str, object]
) -> None:
    await scene.drain({"a": taker})
    scene.emit(3)
    with pytest.raises(ConfigurationDiffers, match="outbox relay --apply"):
        await scene.drain(other)
    assert scene.account == (0, 3, 0, 0)
    await scene.drain({"a": taker})
    assert len(taker.taken) == 3


async def test_an_applied_configuration_replaces_the_registered_one(scene: Scene, taker: Taker) -> None:
    first = Taker()
    await scene.drain({"a": first})
    scene.emit(3)
    assert await scene.drain({"b": taker}, apply=True) == 3
    assert (first.taken, len(taker.taken)) == ([], 3)
    with pytest.raises(ConfigurationDiffers):
        await scene.drain({"a": first})


async def test_a_running_relay_hands_back_when_another_configuration_is_applied(
    postgres_database: Database, taker: Taker
) -> None:
    scene, old = Scene(postgres_database), Taker()
    async with scene.relay({"a": old}) as running:
        await eventually_async(lambda: running.health().owns == 64)
        async with scene.relay({"b": taker}, apply=True):
            with pytest.raises(ConfigurationDiffers):
                await running.wait()
            scene.emit(70)
            await scene.becomes(70, 0, 0, 0)
    assert (old.taken, len(taker.taken)) == ([], 70)


async def test_what_waits_for_a_removed_destination_waits_and_is_delivered_when_it_is_back(scene: Scene) -> None:
    down, fine = Taker(Outage()), Taker()
    scene.emit(5)
    await scene.drain({"gone": down, "fine": fine})
    await scene.drain({"fine": fine}, apply=True)
    assert scene.account == (0, 5, 0, 0)
    back = Taker()
    async with scene.relay({"gone": back, "fine": fine}, apply=True):
        await scene.becomes(5, 0, 0, 0)
    assert sorted(back.taken) == sorted(fine.taken) == list(range(5))


# --------------------------------------------------------------------------- time


async def test_a_message_is_delivered_when_it_is_due_and_not_before(scene: Scene, taker: Taker) -> None:
    (later,) = scene.emit(1, delay=3600)
    (soon,) = scene.emit(1, delay=0.2)
    (past,) = scene.emit(1, due_at=datetime.now(UTC) - timedelta(days=1))
    async with scene.relay({"a": taker}) as relay:
        await eventually_async(lambda: soon in taker.taken)
        await relay.drain()
    assert taker.taken == [past, soon]
    assert scene.account == (2, 1, 0, 0)
    assert later not in taker.tries


async def test_what_falls_due_at_one_instant_is_all_delivered(scene: Scene, taker: Taker) -> None:
    scene.emit(150, due_at=datetime.now(UTC) - timedelta(seconds=1))
    assert await scene.drain({"a": taker}, window=20, page_size=10) == 150
    assert sorted(taker.taken) == list(range(150))


async def test_a_small_window_alone_bounds_what_is_held_of_what_falls_due_at_once(scene: Scene) -> None:
    """A page is at most half of the window, and due messages are always read by the page."""
    scene.emit(150, due_at=datetime.now(UTC) - timedelta(seconds=1))
    held = []

    async def listener(message: Message) -> None:
        assert relay._running.loop_side.dispatcher is not None
        held.append(relay._running.loop_side.dispatcher.held_count)
        await asyncio.sleep(0)

    async with scene.relay({"a": listener}, window=20) as relay:
        await relay.drain()
    assert len(held) == 150
    assert max(held) <= 2 * 20


async def test_a_message_dated_back_is_delivered_by_a_relay_that_runs(scene: Scene, taker: Taker) -> None:
    now = datetime.now(UTC)
    async with scene.relay({"a": taker}):
        for hours in (1, 2, 3):
            scene.emit(1, due_at=now - timedelta(hours=hours))
            await eventually_async(lambda: len(taker.taken) == scene.count)
