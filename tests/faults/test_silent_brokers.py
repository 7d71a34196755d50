"""A network that drops every packet: no attempt waits for ever, no message is blamed, the relay connects anew."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from sqlalchemy import make_url
from support.kafka import Tansu
from support.servers import running
from support.silence import Gate
from support.waiting import eventually_async
from support.worlds import http_world, kafka_world, nats_world, rabbitmq_world, redis_world

from outbox import Message
from outbox.testing.destination_contract import World, assert_outage, message, until
from outbox.testing.destination_contract.promise import Promise
from relay.decide.outcome import Outcome
from relay.destinations.contract import Destination

KINDS = ("http", "kafka", "nats", "rabbitmq", "redis")
WORLDS = {"nats": nats_world, "rabbitmq": rabbitmq_world, "redis": redis_world}


class Behind(NamedTuple):
    """A destination whose messages go through a gate."""

    gate: Gate
    world: World


@pytest.fixture(params=KINDS)
def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    monkeypatch.setattr("relay.destinations.nats.connection.PING_S", 1)
    monkeypatch.setattr("relay.destinations.rabbitmq.amqp.broker.HEARTBEAT_S", 1)
    for module in ("destination", "producer"):
        monkeypatch.setattr(f"relay.destinations.kafka.{module}.GIVE_UP_S", 2.0)
    with ExitStack() as stack:
        if request.param == "kafka":
            yield _kafka(stack)
            return
        if request.param == "http":
            world = stack.enter_context(http_world(timeout_s=2))
        else:
            world = WORLDS[request.param](request.getfixturevalue(request.param))
        url = make_url(world.table["url"])
        gate = stack.enter_context(Gate.to(url.port or 0))
        through = url.set(port=gate.port).render_as_string(hide_password=False)
        yield Behind(gate, World({"timeout_s": 2, **world.table, "url": through}, world.taken, away=gate.shut))


def _kafka(stack: ExitStack) -> Behind:
    server = Tansu()
    gate = stack.enter_context(Gate.to(server.port))
    server.advertised_port = gate.port
    world = kafka_world(stack.enter_context(running(server)))
    return Behind(
        gate, World({**world.table, "bootstrap_servers": f"127.0.0.1:{gate.port}"}, world.taken, away=gate.shut)
    )


def test_no_connection_stays_silent_for_ever(behind: Behind) -> None:
    """This holds for one that was silent from the start, and for one that falls silent later."""

    async def check(world: World) -> None:
        sent = [message() for _ in range(2)]
        destination = world.build()
        try:
            with behind.gate.shut():
                await destination.start()
                await _send_into_silence(destination, sent[0], behind)
            await _until_taken(destination, sent[0])
            with behind.gate.shut():
                await _send_into_silence(destination, sent[1], behind)
            await _until_taken(destination, sent[1])
        finally:
            await destination.close()
        assert {each.id for each in await world.arrived(sent)} == {each.id for each in sent}

    Promise(check, is_about_outages=True)(behind.world)


def test_a_kafka_start_that_is_cut_off_leaves_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for one that takes too long, and for one that is cancelled because the destination is closed."""

    async def check(world: World) -> None:
        with gate.shut(answers=1):  # the library's first question is the broker's version, the second is its topics
            destination = world.build()
            assert_outage(await destination.send(message()), world)
            await eventually_async(lambda: gate.open_count == 0)

            monkeypatch.setattr("relay.destinations.kafka.producer.START_TIMEOUT_S", 60)
            silent_before = gate.silent_count
            sending = asyncio.create_task(destination.send(message()))
            await eventually_async(lambda: gate.silent_count > silent_before)
            await destination.close()
            sending.cancel()
            await eventually_async(lambda: gate.open_count == 0)

    monkeypatch.setattr("relay.destinations.kafka.producer.START_TIMEOUT_S", 0.5)
    with ExitStack() as stack:
        gate, world = _kafka(stack)
        Promise(check, is_about_outages=True)(world)


async def _send_into_silence(destination: Destination, sent: Message, behind: Behind) -> None:
    """Send until the gate has kept something back: on a busy machine, an attempt may end before it has a connection."""
    outcomes: list[Outcome] = []

    def was_silent(outcome: Outcome) -> bool:
        outcomes.append(outcome)
        return behind.gate.silent_count > silent_before

    silent_before = behind.gate.silent_count
    await until(lambda: destination.send(sent), was_silent)
    for each in outcomes:
        assert_outage(each, behind.world)


async def _until_taken(destination: Destination, sent: Message) -> None:
    await until(lambda: destination.send(sent), lambda outcome: outcome.kind == "taken")
