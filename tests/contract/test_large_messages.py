"""A relay holds fewer messages while they are large: a slow destination does not fill the memory with them."""

from __future__ import annotations

import asyncio

import pytest
from support.databases import Database
from support.scene import Scene, Taker, to
from support.waiting import eventually_async

from outbox import Message

LARGE = 10_000  # bytes
ROOM_FOR = 40  # large messages
PAGE = 20
WINDOW = 400
MESSAGES = 600


@pytest.fixture
def scene(database: Database, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr("relay.decide.window.WINDOW_BYTES", ROOM_FOR * LARGE)
    return Scene(database)


async def test_a_slow_destination_holds_few_large_messages_and_takes_no_room_from_another(scene: Scene) -> None:
    scene.emit(MESSAGES, pad=LARGE)
    go_on, slow, fine = asyncio.Event(), Taker(), Taker()
    held = [0]

    async def wait_long(message: Message) -> None:
        await go_on.wait()
        await slow(message)

    async with scene.relay(
        {"slow": to(wait_long, concurrency=4), "fine": to(fine)}, window=WINDOW, page_size=PAGE
    ) as relay:
        dispatcher = relay._running.loop_side.dispatcher  # type: ignore[union-attr]
        await eventually_async(lambda: held.append(dispatcher.held_count) or len(fine.taken) == MESSAGES)
        assert max(held) <= ROOM_FOR + 3 * PAGE, "what was read at once before the size was known may be there, too"
        go_on.set()
        await scene.becomes(MESSAGES, 0, 0, 0)
    assert sorted(slow.taken) == list(range(MESSAGES))


async def test_small_messages_have_the_whole_window_again_after_large_ones(scene: Scene) -> None:
    scene.emit(60, pad=LARGE)
    go_on, taker = asyncio.Event(), Taker()

    async def wait_long(message: Message) -> None:
        await go_on.wait()
        await taker(message)

    async with scene.relay({"a": to(wait_long, concurrency=4)}, window=WINDOW, page_size=PAGE) as relay:
        dispatcher = relay._running.loop_side.dispatcher  # type: ignore[union-attr]
        await eventually_async(lambda: dispatcher.held_count >= ROOM_FOR // 2)
        go_on.set()
        await scene.becomes(60, 0, 0, 0)
        go_on.clear()
        scene.emit(2 * WINDOW)
        await eventually_async(lambda: dispatcher.held_count == WINDOW)
        go_on.set()
        await scene.becomes(60 + 2 * WINDOW, 0, 0, 0)
