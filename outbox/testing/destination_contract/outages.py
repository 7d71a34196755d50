"""What every destination promises while the other side cannot be reached."""

from __future__ import annotations

from outbox.testing.destination_contract.promise import promise_about_outages
from outbox.testing.destination_contract.world import (
    OUTAGE,
    Taken,
    World,
    assert_outage,
    assert_taken,
    away,
    each_of,
    message,
    until,
)


@promise_about_outages
async def an_outage_is_the_fault_of_no_message(world: World) -> None:
    async with world.destination() as destination:
        assert_taken(await destination.send(message()))
        async with away(world):
            await until(lambda: destination.send(message()), lambda outcome: outcome.kind in OUTAGE)
            for _ in range(3):
                assert_outage(await destination.send(message()), world)


@promise_about_outages
async def it_recovers_from_an_outage_by_itself(world: World) -> None:
    sent = message()
    async with world.destination() as destination:
        async with away(world):
            await destination.send(sent)
        await until(lambda: destination.send(sent), lambda outcome: outcome.kind == "taken")
    assert set(await world.arrived([sent])) == {Taken(sent.id, sent.body)}


@promise_about_outages
async def it_starts_while_the_other_side_is_away(world: World) -> None:
    sent = message()
    async with away(world):
        destination = world.build()
        await destination.start()
        assert_outage(await destination.send(sent), world)
    try:
        await until(lambda: destination.send(sent), lambda outcome: outcome.kind == "taken")
    finally:
        await destination.close()


@promise_about_outages
async def a_batch_in_an_outage_condemns_no_message(world: World) -> None:
    from relay.destinations.contract import BatchDestination

    async with away(world), world.destination() as destination:
        if not isinstance(destination, BatchDestination) or destination.batch_size < 2:
            return
        sent = [message() for _ in range(2)]
        for outcome in each_of(await destination.send_many(sent), sent):
            assert_outage(outcome, world)


@promise_about_outages
async def a_probe_says_that_the_other_side_is_away(world: World) -> None:
    from relay.admin.destinations.probe import probe
    from relay.settings import Settings

    async with away(world):
        probed = await probe("tested", Settings(destinations={"tested": world.settings}))
    assert not probed.well
    assert probed.said
