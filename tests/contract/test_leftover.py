"""A drain says what it left, and why; it leaves nothing when everything that was due is delivered."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.scene import Outage, Scene, Taker, failing, rejecting, to

from outbox.testing import drain_async
from relay import Drained
from relay.admin.destinations.listing import pause
from relay.admin.messages.dead import DeadFilter, discard


async def drained(scene: Scene, destinations: dict[str, object]) -> Drained:
    async with scene.relay(destinations) as relay:
        return await relay.drain()


def said(found: Drained) -> list[str]:
    return [str(each) for each in found.left]


async def test_nothing_is_left_when_everything_that_was_due_is_delivered(scene: Scene) -> None:
    scene.emit(3)
    scene.emit(1, delay=timedelta(hours=1))
    found = await drained(scene, {"a": Taker()})
    assert (found.delivered, said(found)) == (3, [])


@pytest.mark.parametrize("count", [2, 5], ids=["a few", "enough to call it down"])
async def test_what_waits_for_a_destination_that_is_down_or_paused_is_left_with_the_reason(
    scene: Scene, count: int
) -> None:
    scene.emit(count)
    (left,) = said(await drained(scene, {"a": Taker(), "b": Taker(Outage())}))
    assert left.startswith(f"{count} for b: ")
    assert "ConnectionError: down" in left
    assert left.startswith("5 for b: it is down (") == (count == 5)
    pause(scene.database.engine, "b", reason="a release")
    (left,) = said(await drained(scene, {"a": Taker(), "b": Taker()}))
    assert left.startswith(f"{count} for b: an operator paused it (a release")


async def test_a_dead_letter_is_left_by_the_drain_in_which_it_died_and_by_no_later_one(scene: Scene) -> None:
    scene.emit(2)
    (left,) = said(await drained(scene, {"a": Taker(rejecting(0))}))
    assert left.startswith("1 for a: dead letters (")
    assert "not 0" in left
    scene.emit(1)
    assert said(await drained(scene, {"a": Taker()})) == []
    discard(scene.database.engine, DeadFilter())
    assert said(await drained(scene, {"a": Taker()})) == []


async def test_what_no_subscription_wants_and_what_waits_for_its_key_is_left(scene: Scene) -> None:
    scene.emit(2, ordering_key="k")
    scene.emit(1, type="debug.seen")
    found = said(await drained(scene, {"a": to(Taker(rejecting(0)), events=["page.*"])}))
    assert len(found) == 3
    assert "1 for a: behind an earlier message of their key" in found
    assert "1 message: no subscription wants debug.seen" in found


async def test_a_drain_in_a_test_says_why_a_message_was_not_delivered(scene: Scene) -> None:
    scene.emit(1)
    found = await drain_async(scene.database.engine, Taker(failing(0)))
    assert found.delivered == 0
    (left,) = said(found)
    assert left.startswith("1 for listener: ")
    assert "not 0" in left
