"""Several relays and one destination: they find an outage together, probe as one, and resume together."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.databases import Database
from support.scene import Outage, Scene, Taker, lane_of, to
from support.waiting import eventually_async

from outbox import Message
from relay.decide.breaker import PROBE_WITH
from relay.decide.outcome import Outcome
from relay.decide.shared_state import Finding

RELAYS = 4
WAITS = {"backoff_s": 0.3, "backoff_max_s": 0.3, "max_attempts": 3}


@pytest.fixture
def scene(postgres_database: Database) -> Scene:
    return Scene(postgres_database)


def conditions(relays: list[Any]) -> list[str]:
    return [lane_of(relay).breaker.condition for relay in relays]


async def fleet(stack: AsyncExitStack, scene: Scene, *takers: Taker, **options: Any) -> list[Any]:
    """Relays that share the shards fairly, each with its own connection to the destination."""
    relays = [await stack.enter_async_context(scene.relay({"a": to(taker, **WAITS)}, **options)) for taker in takers]
    share = 64 // len(relays)
    await eventually_async(lambda: all(abs(len(relay._running.owner.shards) - share) <= 1 for relay in relays))
    return relays


def row(scene: Scene) -> Any:
    (found,) = scene.database.rows("SELECT state, paused_by, pauses, until FROM outbox_destination")
    return found


async def test_many_relays_probe_a_destination_that_is_down_as_rarely_as_one(scene: Scene) -> None:
    outage = Outage()
    taker = Taker(outage)
    async with AsyncExitStack() as stack:
        relays = await fleet(stack, scene, *[taker] * RELAYS)
        scene.emit(200)
        await eventually_async(lambda: conditions(relays) == ["open"] * RELAYS)
        await eventually_async(lambda: all(lane_of(relay).health.joined for relay in relays))
        while True:  # until nothing was under way while we looked
            tries, pauses = outage.tries_while_down, row(scene).pauses
            await eventually_async(lambda before=pauses: row(scene).pauses >= before + 8)  # type: ignore[misc]
            more_tries, more_pauses = outage.tries_while_down - tries, row(scene).pauses - pauses
            if more_pauses:
                break
        # Each probe makes one pause; the probe that is under way when we look makes the difference of one.
        assert more_tries <= PROBE_WITH * (more_pauses + 1)
        outage.down = False
        await scene.becomes(200, 0, 0, 0)
        assert conditions(relays) == ["closed"] * RELAYS
    assert row(scene).state == "healthy"
    assert scene.attempts_charged() == 0


async def test_when_one_probe_is_taken_all_relays_go_on(scene: Scene) -> None:
    outage = Outage()
    taker = Taker(outage)
    async with AsyncExitStack() as stack:
        relays = await fleet(stack, scene, *[taker] * RELAYS)
        scene.emit(100)
        await eventually_async(lambda: all(lane_of(relay).health.joined for relay in relays))
        for relay in relays[1:]:  # only the first one may probe
            lane_of(relay).health._on_probe = lambda _: None
        outage.down = False
        await scene.becomes(100, 0, 0, 0)


async def test_one_relay_that_cannot_reach_the_destination_does_not_stop_the_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own network is broken: the others continue to deliver, and it waits until the network is repaired."""
    monkeypatch.setattr("relay.decide.shared_state.FRESH_S", 60.0)  # the other's next success may take its time
    broken, well = Taker(Outage()), Taker()
    async with AsyncExitStack() as stack:
        relays = await fleet(stack, scene, broken, well)
        scene.emit(50)
        await eventually_async(lambda: lane_of(relays[0]).breaker.condition == "open")

        async def the_healthy_one_is_at_work() -> None:
            scene.emit(20)
            before = len(well.taken)
            await eventually_async(lambda: len(well.taken) > before)

        async def is_disputed() -> bool:
            await the_healthy_one_is_at_work()
            return bool(scene.database.scalar("SELECT disputed_at IS NOT NULL FROM outbox_destination"))

        while not await is_disputed():
            assert lane_of(relays[1]).breaker.condition == "closed"
        for _ in range(10):
            await the_healthy_one_is_at_work()
            assert lane_of(relays[1]).breaker.condition == "closed"
        broken.fate.down = False  # type: ignore[attr-defined]
        await eventually_async(lambda: scene.status.waiting == 0)
    assert scene.attempts_charged() == 0


async def test_a_destination_that_was_gone_stays_off_for_a_relay_that_starts_later(scene: Scene) -> None:
    taker = Taker()
    await scene.drain({"a": taker})
    async with scene.relay({"a": taker}) as relay:
        await relay.drain()

        async def gone(_: Message) -> Outcome:
            return Outcome("gone", "HTTP 410")

        relay._running.loop_side.pools["a"]._send = gone
        scene.emit(3)
        await eventually_async(lambda: row(scene).state == "off")
    async with scene.relay({"a": taker}) as later:
        await later.drain()
        assert lane_of(later).breaker.condition == "off"
    assert taker.attempts == []
    assert scene.account == (0, 3, 0, 0)


async def test_a_wait_that_a_destination_asked_for_outlives_the_relay(scene: Scene) -> None:
    taker = Taker()
    await scene.drain({"a": taker})
    session = _session(scene)
    try:
        session.ownership.report(Finding("a", "throttled", "429", 3600.0))
    finally:
        session.close()
    scene.emit(3)
    async with scene.relay({"a": taker}) as relay:
        await relay.drain()
        assert lane_of(relay).breaker.condition == "throttled"
    assert taker.attempts == []


async def test_a_single_relay_tries_a_destination_itself_despite_earlier_findings(scene: Scene) -> None:
    """The destination was repaired and the relay restarted: no message waits for an old backoff."""
    taker = Taker()
    await scene.drain({"a": taker})
    session = _session(scene)
    try:
        session.ownership.report(Finding("a", "paused", "connection refused", 3600.0, pauses=9))
    finally:
        session.close()
    scene.emit(3)
    assert await scene.drain({"a": taker}) == 3


def _session(scene: Scene) -> Any:
    from relay.databases.database import Database as Address
    from relay.databases.postgresql.store.session import PostgresStore

    return PostgresStore(Address.parse(scene.database.url), lease_s=15, keep_history=True, notify=True).open("before")
