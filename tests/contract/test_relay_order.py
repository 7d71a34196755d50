"""Messages of one ordering key: one after another, despite failures, in any number, and no other key waits."""

import asyncio
import contextlib
import random
from collections import defaultdict

import pytest
from support.scene import Outage, Scene, Taker, failing, rejecting, to
from support.waiting import eventually_async

from outbox import Message
from relay import ListenerSettings

SMALL = {"window": 16, "page_size": 8}


def is_in_order(numbers: list[int]) -> bool:
    return numbers == sorted(numbers)


@pytest.mark.parametrize("options", [{}, SMALL], ids=["roomy", "narrow"])
async def test_messages_of_a_key_are_taken_in_order_and_keys_side_by_side(
    scene: Scene, options: dict[str, int]
) -> None:
    taker = Taker()
    under_way: set[str] = set()
    together = 0

    async def listener(message: Message) -> None:
        nonlocal together
        assert message.ordering_key not in under_way, "two of one key at once"
        under_way.add(str(message.ordering_key))
        together = max(together, len(under_way))
        taker.note(message)
        await asyncio.sleep(0.0005)
        taker.take(message)
        under_way.discard(str(message.ordering_key))

    scene.emit_keys([f"k{n % 5}" for n in range(200)])
    assert await scene.drain({"a": to(listener, concurrency=8)}, **options) == 200
    assert all(is_in_order(taken) for taken in taker.taken_of_key.values())
    assert set(taker.tries.values()) == {1}
    assert together > 1


@pytest.mark.parametrize("options", [{}, SMALL], ids=["roomy", "narrow"])
async def test_no_message_overtakes_a_failing_one_of_its_key(scene: Scene, options: dict[str, int]) -> None:
    taker = Taker(failing(4, 13, 40, times=2))
    scene.emit_keys([f"k{n % 4}" for n in range(160)])
    async with scene.relay({"a": taker}, **options):
        await scene.becomes(160, 0, 0, 0)
    for key, taken in taker.taken_of_key.items():
        assert is_in_order(taken), key
        assert taker.first_tries_of(str(key)) == taken, key
    assert sorted(taker.taken) == list(range(160))


@pytest.mark.parametrize("options", [{}, SMALL], ids=["roomy", "narrow"])
async def test_a_dead_letter_blocks_its_key_and_no_other(scene: Scene, options: dict[str, int]) -> None:
    taker = Taker(rejecting(2))
    scene.emit_keys(["k" if n in (0, 2, 5, 7) else f"other{n % 3}" for n in range(60)])
    async with scene.relay({"a": taker}, **options) as relay:
        await eventually_async(lambda: len(taker.taken) == 57)
        await relay.drain()
        scene.emit_keys(["k", "other0", "k"])
        await eventually_async(lambda: len(taker.taken) == 58)
        await scene.becomes(58, 4, 1, 0)
    assert taker.tried_of_key["k"] == [0, 2]


@pytest.mark.parametrize("options", [{}, SMALL], ids=["roomy", "narrow"])
async def test_a_dead_letter_is_skipped_where_that_is_configured(scene: Scene, options: dict[str, int]) -> None:
    taker = Taker(rejecting(2, 30))
    scene.emit_keys(["k"] * 60)
    scene.emit_keys(["l"] * 3)
    async with scene.relay({"a": to(taker, on_dead="skip")}, **options):
        await scene.becomes(61, 0, 2, 0)
        scene.emit_keys(["k"] * 3)
        await scene.becomes(64, 0, 2, 0)
    assert taker.taken_of_key["k"] == [n for n in [*range(60), 63, 64, 65] if n not in (2, 30)]


async def test_a_blocked_key_is_blocked_after_a_restart_too(scene: Scene) -> None:
    taker = Taker(rejecting(0))
    scene.emit_keys(["k", "k", "l"])
    async with scene.relay({"a": taker}):
        await scene.becomes(1, 1, 1, 0)
    scene.emit_keys(["k", "l"])
    async with scene.relay({"a": taker}) as relay:
        await scene.becomes(2, 2, 1, 0)
        await relay.drain()
    assert taker.tried_of_key["k"] == [0]


async def test_a_hot_key_beyond_its_room_in_memory_is_taken_in_order_and_others_flow(scene: Scene) -> None:
    gate = asyncio.Event()
    taker = Taker()

    async def listener(message: Message) -> None:
        taker.note(message)
        if message.ordering_key == "hot":
            await gate.wait()
        taker.take(message)

    scene.emit_keys(["hot"] * 100)
    scene.emit_keys([f"cool{n % 7}" for n in range(50)])
    scene.emit(50)
    async with scene.relay({"a": to(listener, concurrency=4)}, **SMALL):
        await eventually_async(lambda: len(taker.taken) == 100)
        assert taker.taken_of_key["hot"] == []
        gate.set()
        scene.emit_keys(["hot"] * 20)
        await scene.becomes(220, 0, 0, 0)
    assert all(is_in_order(taken) for key, taken in taker.taken_of_key.items() if key is not None)
    assert set(taker.tries.values()) == {1}


async def test_each_destination_keeps_the_order_by_itself(scene: Scene) -> None:
    outage = Outage()
    down, fine = Taker(outage), Taker(failing(11, 22, times=1))
    scene.emit_keys([f"k{n % 3}" for n in range(90)])
    async with scene.relay({"down": down, "fine": fine}, **SMALL):
        await eventually_async(lambda: len(fine.taken) == 90)
        scene.emit_keys([f"k{n % 3}" for n in range(30)])
        await eventually_async(lambda: len(fine.taken) == 120)
        outage.down = False
        await scene.becomes(120, 0, 0, 0)
    for taker in (down, fine):
        assert sorted(taker.taken) == list(range(120))
        assert all(is_in_order(taken) for taken in taker.taken_of_key.values())


async def test_an_outage_in_the_middle_keeps_the_order(scene: Scene) -> None:
    outage = Outage(down=False)
    taker = Taker(outage)
    async with scene.relay({"a": taker}, **SMALL):
        for down in (True, False, True, False):
            scene.emit_keys([f"k{n % 6}" for n in range(60)])
            outage.down = down
            if down:
                await eventually_async(lambda: scene.status.destinations["a"].state == "paused")
        await scene.becomes(240, 0, 0, 0)
    assert all(is_in_order(taken) for taken in taker.taken_of_key.values())
    assert all(taker.first_tries_of(str(key)) == taken for key, taken in taker.taken_of_key.items())


async def test_a_stop_in_the_middle_keeps_the_order_and_repeats_nothing(scene: Scene) -> None:
    taker = Taker(failing(*range(0, 200, 17), times=1))
    scene.emit_keys([f"k{n % 6}" for n in range(200)])
    for enough in (20, 60, 120):
        async with scene.relay({"a": taker}, **SMALL):
            await eventually_async(lambda enough=enough: len(taker.taken) >= enough)
    async with scene.relay({"a": taker}, **SMALL):
        await scene.becomes(200, 0, 0, 0)
    assert sorted(taker.taken) == list(range(200))
    assert all(is_in_order(taken) for taken in taker.taken_of_key.values())


@pytest.mark.parametrize("seed", range(3))
async def test_any_program_conserves_every_message_and_the_order_of_every_key(scene: Scene, seed: int) -> None:
    """Random emits, failures, rejections, outages and restarts, in a narrow window, with two destinations."""
    chance = random.Random(seed)
    down = {"a": False, "b": False}
    doomed = {n: chance.choice(["fails", "fails", "rejects"]) for n in range(1000) if chance.random() < 0.04}
    spent: defaultdict[tuple[str, int], int] = defaultdict(int)
    takers = {"a": Taker(), "b": Taker()}
    skipping = chance.choice(["block", "skip"])

    def listener(name: str) -> ListenerSettings:
        async def listen(message: Message) -> None:
            n = message.data["n"]
            takers[name].note(message)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if down[name]:
                raise ConnectionError("down")
            if name == "a" and n in doomed:
                spent[name, n] += 1
                if doomed[n] == "rejects":
                    rejecting(n)(message)
                if spent[name, n] <= 2:
                    failing(n)(message)
            takers[name].take(message)

        return to(listen, concurrency=chance.choice([1, 3, 8]), on_dead=skipping, max_attempts=50)

    destinations = {name: listener(name) for name in takers}
    for _ in range(3):
        options = {"window": chance.choice([8, 16, 64]), "page_size": chance.choice([2, 8])}
        async with scene.relay(destinations, **options):
            for _ in range(4):
                scene.emit_keys(
                    [chance.choice([None, "k0", "k1", "k2", "hot", "hot"]) for _ in range(chance.randrange(12))]
                )
                down["a"], down["b"] = chance.random() < 0.3, chance.random() < 0.3
                enough = len(takers["b"].attempts) + chance.randrange(5)
                with contextlib.suppress(TimeoutError):  # the program may have left nothing to attempt
                    async with asyncio.timeout(0.1):
                        await takers["b"].has_tried(enough)
    down.update(a=False, b=False)
    rejected = {n for n, fate in doomed.items() if fate == "rejects" and n < scene.count}
    async with scene.relay(destinations):
        await eventually_async(lambda: len(set(takers["b"].taken)) == scene.count, deadline_s=30)
        scene.emit(1)
        expected = set(range(scene.count)) - rejected
        if skipping == "skip":
            await eventually_async(lambda: expected <= set(takers["a"].taken), deadline_s=30)
            await scene.becomes(scene.count - len(rejected), 0, len(rejected), 0)
        else:
            await _quiet(scene)
    found = scene.status
    assert found.delivered + found.waiting + found.dead + found.unrouted == scene.count
    assert set(takers["b"].taken) == set(range(scene.count))
    for name, taker in takers.items():
        assert len(taker.taken) == len(set(taker.taken)), f"{name}: without crashes, nothing is repeated"
        for key, taken in taker.taken_of_key.items():
            assert key is None or is_in_order(taken), (name, key)
            assert key is None or is_in_order(taker.first_tries_of(key)), (name, key)


async def _quiet(scene: Scene) -> None:
    """Wait until every waiting message is blocked behind a dead letter."""

    def only_blocked() -> bool:
        states = {state for _, state in scene.deliveries()}
        ready = scene.database.scalar("SELECT count(*) FROM outbox_message WHERE state <> 'held'")
        return ready == 0 and states <= {"dead", "blocked", "delivered"}

    await eventually_async(only_blocked, deadline_s=30)


async def test_what_waits_behind_memory_at_one_place_and_is_under_way_at_another_comes_to_its_turn(
    scene: Scene,
) -> None:
    """Its predecessors may be settled before the relay knows that it waits: then it is released at once."""
    gates = {"slow": asyncio.Event(), "narrow": asyncio.Event()}
    takers = {"slow": Taker(), "narrow": Taker()}

    def behind_gate(name: str, **options: object) -> ListenerSettings:
        async def listen(message: Message) -> None:
            takers[name].note(message)
            await gates[name].wait()
            takers[name].take(message)

        return to(listen, **options)

    destinations = {"slow": behind_gate("slow", events=["both"]), "narrow": behind_gate("narrow")}
    scene.emit(3, type="narrow.only", ordering_key="k")
    scene.emit(1, type="both", ordering_key="k")
    async with scene.relay(destinations, **SMALL):
        await eventually_async(lambda: takers["slow"].attempts and takers["narrow"].attempts)
        gates["narrow"].set()
        await scene.becomes(3, 1, 0, 0)
        gates["slow"].set()
        await scene.becomes(4, 0, 0, 0)
    assert takers["narrow"].taken == [0, 1, 2, 3]
