"""What a relay does when listeners fail: whom it blames, what it tries again, and what it leaves alone."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs
from support.scene import Outage, Scene, Taker, failing, rejecting, to
from support.waiting import eventually_async

from outbox import Message, Reject


async def test_poison_among_good_messages_is_retried_and_dies_and_the_others_are_tried_once(scene: Scene) -> None:
    taker = Taker(failing(7))
    scene.emit(60)
    async with scene.relay({"a": to(taker, max_attempts=4)}):
        while scene.status.dead < 1:
            scene.emit(1)
            await eventually_async(lambda: len(set(taker.tries)) == scene.count)
        await scene.becomes(scene.count - 1, 0, 1, 0)
    assert sorted(taker.taken) == [n for n in range(scene.count) if n != 7]
    assert {n for n, tries in taker.tries.items() if tries > 1} == {7}
    (row,) = scene.database.rows("SELECT * FROM outbox_delivery")
    assert (row.state, row.attempts) == ("dead", 4)
    assert "ValueError: not 7" in row.reason
    assert "attempt 4 of 4" in row.reason


async def test_a_dead_letter_tells_the_story_of_its_attempts(scene: Scene) -> None:
    taker = Taker(failing(0))
    async with scene.relay({"a": to(taker, max_attempts=3)}):
        while scene.status.dead < 1:
            scene.emit(1)
            await eventually_async(lambda: len(set(taker.tries)) == scene.count)
    log = scene.database.scalar("SELECT log FROM outbox_delivery")
    log = json.loads(log) if isinstance(log, str) else log
    assert [(each["attempt"], each["verdict"]) for each in log] == [(1, "retry"), (2, "retry"), (3, "dead")]


async def test_the_attempts_that_a_message_counts_are_those_it_was_charged_for(scene: Scene) -> None:
    taker = Taker(failing(0, times=2))
    async with scene.relay({"a": taker}):
        while 0 not in taker.taken:
            scene.emit(1)
            await eventually_async(lambda: len(set(taker.tries)) == scene.count)
        await scene.becomes(scene.count, 0, 0, 0)
    history = scene.database.scalar("SELECT max(attempts) FROM outbox_history")
    assert history == max(a.number for a in taker.attempts if a.n == 0) <= 3


async def test_a_rejected_message_is_dead_at_once_and_nothing_else_is(scene: Scene) -> None:
    taker = Taker(rejecting(3))
    scene.emit(20)
    async with scene.relay({"a": taker}):
        await scene.becomes(19, 0, 1, 0)
    assert set(taker.tries.values()) == {1}
    assert "rejected by" in scene.database.scalar("SELECT reason FROM outbox_delivery")


async def test_a_rejected_message_alone_is_dead(scene: Scene) -> None:
    scene.emit(1)
    async with scene.relay({"a": Taker(rejecting(0))}):
        await scene.becomes(0, 0, 1, 0)


async def test_when_every_message_is_rejected_nothing_is_dead_and_all_are_delivered_later(scene: Scene) -> None:
    outage = Outage()

    def fate(message: Message) -> None:
        if outage.down:
            raise Reject("no more")

    taker = Taker(fate)
    scene.emit(50)
    async with scene.relay({"a": taker}) as relay:
        await eventually_async(lambda: scene.status.destinations["a"].state == "paused")
        await relay.drain()
        assert scene.account == (0, 50, 0, 0)
        outage.down = False
        await scene.becomes(50, 0, 0, 0)
    assert scene.attempts_charged() == 0


async def test_an_outage_costs_no_message_an_attempt_and_heals_by_itself(scene: Scene) -> None:
    outage = Outage()
    taker = Taker(outage)
    scene.emit(200)
    async with scene.relay({"a": to(taker, max_attempts=1)}) as relay:
        await eventually_async(lambda: scene.status.destinations["a"].state == "paused")
        await eventually_async(lambda: outage.tries_while_down > 25)
        await relay.drain()
        found = scene.status
        assert (found.delivered, found.dead, scene.attempts_charged()) == (0, 0, 0)
        assert "ConnectionError: down" in (found.destinations["a"].reason or "")
        outage.down = False
        await scene.becomes(200, 0, 0, 0)
        await eventually_async(lambda: scene.status.destinations["a"].state == "healthy")
    assert sorted(taker.taken) == list(range(200))
    assert {a.number for a in taker.attempts} == {1}


async def test_an_outage_that_begins_in_the_middle_costs_no_message_an_attempt(scene: Scene) -> None:
    outage = Outage(down=False)
    taker = Taker(outage)
    async with scene.relay({"a": to(taker, max_attempts=1, concurrency=8)}):
        scene.emit(300)
        await eventually_async(lambda: len(taker.taken) > 20)
        outage.down = True
        scene.emit(100)
        await eventually_async(lambda: scene.status.destinations["a"].state == "paused")
        outage.down = False
        await scene.becomes(400, 0, 0, 0)
    assert sorted(taker.taken) == list(range(400))


async def test_a_lone_message_that_a_living_listener_never_takes_is_dead_after_its_attempts(scene: Scene) -> None:
    scene.emit(1)
    taker = Taker(failing(0))
    async with scene.relay({"a": to(taker, max_attempts=3)}):
        await scene.becomes(0, 0, 1, 0)
    assert taker.tries[0] == 3


@pytest.mark.parametrize("count", [1, 4])
async def test_a_few_messages_that_an_outage_fails_are_tried_again_and_again_and_never_die_of_it(
    scene: Scene, count: int
) -> None:
    taker = Taker(failing(*range(count), error=ConnectionError))
    scene.emit(count)
    async with scene.relay({"a": to(taker, max_attempts=2)}):
        await eventually_async(lambda: min(taker.tries[n] for n in range(count)) > 5)
        assert scene.account == (0, count, 0, 0)
        assert scene.status.destinations["a"].state == "healthy"
        taker.fate = lambda message: None
        await scene.becomes(count, 0, 0, 0)
    assert scene.attempts_charged() == 0


@pytest.mark.parametrize("names", [("a",), ("a", "b")], ids=["alone", "beside another"])
@pytest.mark.parametrize("error", [ValueError, Reject, ConnectionError])
@pytest.mark.parametrize("key", [None, "k"], ids=["ten", "one with twenty successors"])
async def test_a_few_bad_messages_in_a_quiet_moment_stop_no_other(
    scene: Scene, names: tuple[str, ...], error: type[Exception], key: str | None
) -> None:
    """They used to fill the room of untried messages, so no message was read that could have settled the blame."""
    bad = 10 if key is None else 1
    taker = Taker(failing(*range(bad), error=error))
    scene.emit_keys([key] * (bad if key is None else 21))
    others = scene.count
    takers = {name: taker if name == "a" else Taker() for name in names}
    async with scene.relay(takers, window=16, page_size=8):
        await taker.has_tried(min(bad, 5))
        scene.emit(40)
        await eventually_async(lambda: set(range(others, others + 40)) <= set(taker.taken), deadline_s=30)


@pytest.mark.parametrize(("count", "one_in"), [(1_000, 1_000), (300, 10), (100, 1)], ids=["rare", "tenth", "burst"])
async def test_every_poison_message_is_convicted_and_no_other(scene: Scene, count: int, one_in: int) -> None:
    """Few or many of them: each becomes a dead letter while others are taken, and every other message is delivered."""
    poison = set(range(count // 2 % one_in, count, one_in))
    taker = Taker(failing(*poison))
    scene.emit(count)
    async with scene.relay({"a": to(taker, max_attempts=2)}):
        await taker.has_tried(count)
        while scene.status.dead < len(poison):
            scene.emit(200)
            await eventually_async(lambda: set(taker.taken) == set(range(scene.count)) - poison)
        await scene.becomes(scene.count - len(poison), 0, len(poison), 0)
    assert {n for n, tries in taker.tries.items() if tries > 1} == poison
    assert min(taker.tries[n] for n in poison) >= 2


@pytest.mark.parametrize(("count", "said"), [(1, []), (5, ["destination_down", "destination_back"])])
async def test_the_log_tells_of_an_outage_once_and_not_of_one_failure(
    scene: Scene, count: int, said: list[str]
) -> None:
    """In a slow stream, some attempts fail and succeed when repeated: each such failure used to log two lines."""
    scene.emit(count)
    with capture_logs() as records:
        async with scene.relay({"a": to(Taker(failing(*range(count), times=3, error=ConnectionError)))}):
            await scene.becomes(count, 0, 0, 0)
    assert [each["event"] for each in records if each["event"].startswith("destination_")] == said


async def test_a_destination_that_is_down_delays_no_other(scene: Scene) -> None:
    outage = Outage()
    down, fine = Taker(outage), Taker()
    scene.emit(300)
    async with scene.relay({"down": down, "fine": fine}, window=40, page_size=20) as relay:
        await eventually_async(lambda: len(fine.taken) == 300)
        scene.emit(100)
        await eventually_async(lambda: len(fine.taken) == 400)
        await relay.drain()
        assert scene.account == (0, 400, 0, 0)
        outage.down = False
        await scene.becomes(400, 0, 0, 0)
    assert sorted(down.taken) == sorted(fine.taken) == list(range(400))
    assert set(fine.tries.values()) == {1}
    assert scene.attempts_charged() == 0


async def test_a_drain_tells_what_some_destinations_took_from_what_all_took(scene: Scene) -> None:
    outage = Outage()
    down, fine = Taker(outage), Taker()
    scene.emit(5)
    async with scene.relay({"down": down, "fine": fine}) as relay:
        drained = await relay.drain()
        assert (drained.delivered, drained.partly) == (0, 5)
        outage.down = False
        await scene.becomes(5, 0, 0, 0)


async def test_what_was_parked_for_a_destination_that_is_down_survives_a_restart(scene: Scene) -> None:
    outage = Outage()
    down, fine = Taker(outage), Taker()
    destinations = {"down": down, "fine": fine}
    scene.emit(100)
    async with scene.relay(destinations, window=20, page_size=10):
        await eventually_async(lambda: len(fine.taken) == 100)
    outage.down = False
    async with scene.relay(destinations, window=20, page_size=10):
        await scene.becomes(100, 0, 0, 0)
    assert sorted(down.taken) == sorted(fine.taken) == list(range(100))
    assert set(fine.tries.values()) == {1}


async def test_a_slow_destination_delays_no_other(scene: Scene) -> None:
    go_on = asyncio.Event()
    slow, fine = Taker(), Taker()

    async def wait_long(message: Message) -> None:
        slow.note(message)
        await go_on.wait()
        slow.take(message)

    scene.emit(300)
    async with scene.relay({"slow": to(wait_long, concurrency=2), "fine": fine}, window=40, page_size=20):
        await eventually_async(lambda: len(fine.taken) == 300)
        assert slow.taken == []
        go_on.set()
        await scene.becomes(300, 0, 0, 0)
    assert sorted(slow.taken) == list(range(300))


async def test_what_one_destination_set_aside_does_not_wait_for_another_that_is_slow(scene: Scene) -> None:
    go_on, outage = asyncio.Event(), Outage()
    slow, fine = Taker(), Taker(outage)

    async def wait_long(message: Message) -> None:
        slow.note(message)
        await go_on.wait()
        slow.take(message)

    scene.emit(60)
    async with scene.relay({"slow": to(wait_long, concurrency=2), "fine": fine}, window=80, page_size=20):
        await eventually_async(lambda: slow.attempts and scene.status.destinations["fine"].state == "paused")
        outage.down = False
        # at most all but the two that are under way at the slow one
        await eventually_async(lambda: len(fine.taken) >= 58)
        assert slow.taken == []
        go_on.set()
        await scene.becomes(60, 0, 0, 0)
    assert sorted(slow.taken) == sorted(fine.taken) == list(range(60))


async def test_no_more_attempts_are_under_way_than_allowed(scene: Scene) -> None:
    under_way, most = 0, 0

    async def listener(message: Message) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    scene.emit(100)
    await scene.drain({"a": to(listener, concurrency=3)})
    assert most == 3


class NoException(BaseException):
    """As test frameworks and other event loops raise it."""


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no message")


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("nul \x00 inside"),
        ValueError("half a pair \ud83d"),
        ValueError("x" * 5_000),
        TimeoutError("its own"),
        asyncio.CancelledError("it let a cancellation escape"),
        StopIteration("nothing is next"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        NoException("no exception"),
        Mute(),
    ],
    ids=["nul", "surrogate", "long", "timeout", "cancelled", "next", "exit", "interrupt", "closed", "base", "mute"],
)
async def test_an_error_of_a_listener_concerns_only_its_own_message(
    scene: Scene, error: BaseException, is_async: bool
) -> None:
    def fate(message: Message) -> None:
        if message.data["n"] == 0:
            raise error

    taker = Taker(fate)

    def plain(message: Message) -> None:
        taker.note(message)
        taker.fate(message)
        taker.take(message)

    scene.emit(30)
    listener = taker if is_async else plain
    with capture_logs() as logs:
        async with scene.relay({"a": to(listener, max_attempts=2, concurrency=1, timeout_s=None)}):
            while scene.status.dead < 1:
                scene.emit(1)
                await eventually_async(lambda: len(taker.taken) == scene.count - 1)
            await scene.becomes(scene.count - 1, 0, 1, 0)
    assert {n for n, tries in taker.tries.items() if tries > 1} <= {0}
    assert "session_broke" not in {each["event"] for each in logs}


async def test_a_listener_that_takes_too_long_has_failed(scene: Scene) -> None:
    taker = Taker()

    async def listener(message: Message) -> None:
        taker.note(message)
        if message.data["n"] == 0 and taker.tries[0] < 3:
            await asyncio.Event().wait()
        taker.take(message)

    scene.emit(10)
    async with scene.relay({"a": to(listener, timeout_s=0.05)}):
        while 0 not in taker.taken:
            scene.emit(1)
            await eventually_async(lambda: len(set(taker.tries)) == scene.count)
        await scene.becomes(scene.count, 0, 0, 0)
    assert taker.tries[0] == 3
