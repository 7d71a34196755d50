"""A part of a relay that ends by an error ends the relay, in order: no relay runs with a part missing."""

from typing import Any

import pytest
from structlog.testing import capture_logs
from support.scene import Scene, Taker, lane_of

IN_ORDER = "SELECT count(*) FROM outbox_shard WHERE dirty"


async def test_a_worker_that_dies_ends_the_relay_which_hands_back_what_it_owns(scene: Scene) -> None:
    scene.emit(3)
    with capture_logs() as records:
        async with scene.relay({"a": Taker()}, grace_s=0.5) as relay:
            _break(lane_of(relay))
            with pytest.raises(KeyError):
                await relay.wait()
    failed = [each for each in records if each["event"] == "task_failed"]
    assert [(each["log_level"], each["task"].startswith("worker")) for each in failed[:1]] == [("critical", True)]
    assert scene.database.scalar(IN_ORDER) == 0
    assert await scene.drain({"a": Taker()}) == 3


async def test_a_page_that_cannot_be_taken_in_ends_the_relay(scene: Scene) -> None:
    async with scene.relay({"a": Taker()}, grace_s=0.5) as relay:
        dispatcher: Any = relay._running.loop_side.dispatcher

        def break_down(*_: object) -> None:
            raise KeyError("k")

        dispatcher._arrivals = break_down
        scene.emit(1)
        with pytest.raises(KeyError):
            await relay.wait()
    assert await scene.drain({"a": Taker()}) == 1


def _break(lane: Any) -> None:
    def finish(*_: object) -> None:
        raise KeyError("k")

    lane.finish = finish
