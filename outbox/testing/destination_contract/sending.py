"""What every destination promises while the other side can be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from outbox.testing.destination_contract.promise import promise
from outbox.testing.destination_contract.world import Taken, World, assert_taken, each_of, message

if TYPE_CHECKING:
    from relay.decide.outcome import Outcome

AT_ONCE = 32
ODD_DATA: tuple[Any, ...] = (
    None,
    [],
    "",
    {"text": "ÄÖÜ €uro \U0001f4e6 \u2028", "quotes": "\"'\\", "number": 1e300},
    {"long": "x" * 200_000},
)
ODD_HEADERS = {
    "plain": "value",
    "spaced": " a  b ",
    "letters": "zwölf €",
    "traceparent": "00-" + "1" * 32 + "-" + "2" * 16,
}


@promise
async def its_settings_are_found_by_its_name(world: World) -> None:
    from relay.destinations import registry

    settings = world.settings
    assert settings.kind == world.table["kind"] in registry.names()
    assert isinstance(settings, registry.kind(settings.kind).settings)
    registry.check("tested", settings)
    shown = repr(settings)
    assert not [secret for secret in settings.secrets() if secret in shown], "a secret shows in the settings"


@promise
async def a_setting_that_it_does_not_know_is_refused(world: World) -> None:
    try:
        _ = World({**world.table, "no_such_setting": 1}, world.taken).settings
    except ValueError:
        return
    raise AssertionError("no_such_setting is not refused")


@promise
async def a_message_arrives_with_its_id_and_its_bytes(world: World) -> None:
    sent = message(key="c-1")
    async with world.destination() as destination:
        assert_taken(await destination.send(sent))
    assert await world.arrived([sent]) == [Taken(sent.id, sent.body)]


@promise
async def any_event_can_be_sent(world: World) -> None:
    sent = [message(data, key="schlüssel ✓", headers=ODD_HEADERS) for data in ODD_DATA]
    async with world.destination() as destination:
        for each in sent:
            assert_taken(await destination.send(each))
    assert dict(await world.arrived(sent)) == {each.id: each.body for each in sent}


@promise
async def several_messages_can_be_under_way_at_once(world: World) -> None:
    async with world.destination() as destination:
        sent = [message() for _ in range(min(destination.concurrency, AT_ONCE))]
        for outcome in await asyncio.gather(*map(destination.send, sent)):
            assert_taken(outcome)
    assert dict(await world.arrived(sent)) == {each.id: each.body for each in sent}


@promise
async def messages_sent_one_after_another_arrive_in_that_order(world: World) -> None:
    sent = [message(key="c-1") for _ in range(10)]
    async with world.destination() as destination:
        for each in sent:
            assert_taken(await destination.send(each))
    assert [each.id for each in await world.arrived(sent)] == [each.id for each in sent]


@promise
async def a_message_that_is_sent_again_is_known_by_its_id(world: World) -> None:
    sent = message()
    async with world.destination() as destination:
        for _ in range(2):
            assert_taken(await destination.send(sent))
    assert set(await world.arrived([sent])) == {Taken(sent.id, sent.body)}


@promise
async def an_attempt_that_is_cancelled_does_no_harm_to_the_next(world: World) -> None:
    async with world.destination() as destination:
        assert_taken(await destination.send(message()))
        attempt = asyncio.create_task(_awaited(destination.send(message())))
        await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        sent = message()
        assert_taken(await destination.send(sent))
    await world.arrived([sent])


@promise
async def a_batch_arrives_in_order_with_an_outcome_for_each_message(world: World) -> None:
    from relay.destinations.contract import BatchDestination

    async with world.destination() as destination:
        if not isinstance(destination, BatchDestination) or destination.batch_size < 2:
            return
        sent = [message(key=f"c-{n}") for n in range(min(destination.batch_size, AT_ONCE))]
        assert all(map(destination.may_share, sent)), "a plain message may not go in a batch"
        for outcome in each_of(await destination.send_many(sent), sent):
            assert_taken(outcome)
    assert dict(await world.arrived(sent)) == {each.id: each.body for each in sent}


@promise
async def a_probe_says_that_all_is_well_and_sends_nothing(world: World) -> None:
    from relay.destinations import registry

    probed = await registry.kind(world.settings.kind).probe("tested", world.settings)
    assert probed.well, probed.said
    assert probed.said
    assert probed.checked
    assert list(await asyncio.to_thread(world.taken)) == []


@promise
async def it_can_be_closed_at_any_time(world: World) -> None:
    await world.build().close()
    destination = world.build()
    await destination.start()
    await destination.close()
    await destination.close()


async def _awaited(attempt: Awaitable[Outcome]) -> Outcome:
    return await attempt
