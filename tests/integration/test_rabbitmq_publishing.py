"""How the RabbitMQ destination interprets a broker's answers: each is an outcome, with its reason."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from pydantic import ValidationError
from support.ports import free_port
from support.rabbitmq import EXCHANGE, QUEUE, RabbitServer, drained, on_channel
from support.sending import sent_until
from support.waiting import eventually_async

from outbox import Message
from outbox.checks.ids import new_id
from outbox.errors import SettingsError
from relay.decide.outcome import TAKEN
from relay.destinations.rabbitmq.amqp import TROUBLE, Broker, explained
from relay.destinations.rabbitmq.destination import RabbitDestination
from relay.destinations.rabbitmq.settings import RabbitSettings

TYPE = "extraction.completed"


def message(n: int = 0, *, type: str = TYPE, body: str | None = None, **more: Any) -> Message:
    attributes = {"subject": None, "ordering_key": None, "headers": {}, "created_at": datetime.now(UTC), **more}
    return Message(id=new_id(), type=type, source="outbox", body=body or f'{{"contentId": "c-{n}"}}', **attributes)


@asynccontextmanager
async def destination(url: str, **settings: object) -> AsyncIterator[RabbitDestination]:
    made = RabbitDestination("rabbitmq", RabbitSettings.model_validate({"url": url, "events": [TYPE], **settings}))
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def declare(url: str, work: Callable[[AbstractChannel], Awaitable[object]]) -> None:
    await on_channel(url, work)


async def in_queue(url: str, queue: str = QUEUE) -> list[str]:
    return [taken.message_id or "" for taken in await on_channel(url, lambda channel: drained(channel, queue))]


async def test_taken_means_in_the_queue_that_was_made_and_bound_for_it(rabbitmq: RabbitServer) -> None:
    sent = message(ordering_key="c-0", subject="contents/0", headers={"x-tenant": "7", "traceparent": "00-1-2-01"})
    async with destination(rabbitmq.url) as made:
        assert await made.send(sent) == TAKEN
    [got] = await on_channel(rabbitmq.url, lambda channel: drained(channel, QUEUE))
    assert got.body == sent.body
    assert (got.message_id, got.type, got.content_type) == (sent.id, TYPE, "application/json")
    assert got.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert got.timestamp == sent.created_at.replace(microsecond=0)
    assert (got.exchange, got.routing_key) == (EXCHANGE, TYPE)
    assert got.headers == {
        "x-tenant": "7",
        "traceparent": "00-1-2-01",
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": sent.id,
        "cloudEvents_source": "outbox",
        "cloudEvents_type": TYPE,
        "cloudEvents_time": sent.created_at.isoformat().replace("+00:00", "Z"),
        "cloudEvents_subject": "contents/0",
        "cloudEvents_partitionkey": "c-0",
    }


async def test_a_body_longer_than_a_frame_arrives_whole(rabbitmq: RabbitServer) -> None:
    sent = [message(body=f'"{"x" * size}"') for size in (131_061, 131_062, 131_063, 262_100)]
    async with destination(rabbitmq.url) as made:
        assert await asyncio.gather(*map(made.send, sent)) == [TAKEN] * len(sent)
    got = await on_channel(rabbitmq.url, lambda channel: drained(channel, QUEUE))
    assert [each.body for each in got] == [each.body for each in sent]


async def test_hundreds_under_way_at_once_are_told_apart_and_keep_their_order(rabbitmq: RabbitServer) -> None:
    sent = [message(n) for n in range(600)]
    async with destination(rabbitmq.url) as made:
        assert await asyncio.gather(*map(made.send, sent)) == [TAKEN] * 600
    assert await in_queue(rabbitmq.url) == [each.id for each in sent]


async def test_the_guides_transient_exchange_and_its_plain_queue_are_used_as_they_are(rabbitmq: RabbitServer) -> None:
    async def as_in_the_guide(channel: AbstractChannel) -> None:
        await channel.declare_exchange(EXCHANGE, "topic")
        await channel.declare_queue(QUEUE, durable=True)

    await declare(rabbitmq.url, as_in_the_guide)
    sent = message()
    async with destination(rabbitmq.url) as made:
        assert await made.send(sent) == TAKEN
    assert await in_queue(rabbitmq.url) == [sent.id]
    await declare(rabbitmq.url, as_in_the_guide)


async def test_created_objects_are_durable_and_plain_so_other_clients_may_assert_them(rabbitmq: RabbitServer) -> None:
    async def assert_it(channel: AbstractChannel) -> None:
        await channel.declare_exchange(EXCHANGE, "topic", durable=True)
        await channel.declare_queue(QUEUE, durable=True)

    async with destination(rabbitmq.url) as made:
        assert await made.send(message()) == TAKEN
    await declare(rabbitmq.url, assert_it)


async def test_a_quorum_queue_is_made_where_it_is_configured(rabbitmq: RabbitServer) -> None:
    async def assert_it(channel: AbstractChannel) -> None:
        await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})

    async with destination(rabbitmq.url, queue_type="quorum") as made:
        assert await made.send(message()) == TAKEN
    await declare(rabbitmq.url, assert_it)


async def test_a_type_that_only_a_pattern_covers_gets_its_queue_with_its_first_message(rabbitmq: RabbitServer) -> None:
    sent = [message(n, type="extraction.failed") for n in range(20)]
    async with destination(rabbitmq.url, events=["extraction.*"]) as made:
        assert await asyncio.gather(*map(made.send, sent)) == [TAKEN] * 20
    assert sorted(await in_queue(rabbitmq.url, "extraction.failed")) == sorted(each.id for each in sent)


async def test_if_an_operators_queue_is_bound_none_of_ours_is_created(rabbitmq: RabbitServer) -> None:
    async def everything(channel: AbstractChannel) -> None:
        exchange = await channel.declare_exchange(EXCHANGE, "topic", durable=True)
        queue = await channel.declare_queue("everything", durable=True)
        await queue.bind(exchange, "#")

    await declare(rabbitmq.url, everything)
    async with destination(rabbitmq.url, events=["*"]) as made:
        assert await made.send(message()) == TAKEN
    assert await asyncio.to_thread(rabbitmq.depth, QUEUE) == -1
    assert await asyncio.to_thread(rabbitmq.depth, "everything") == 1


async def test_with_declare_off_an_unroutable_message_fails_and_nothing_is_created(rabbitmq: RabbitServer) -> None:
    await declare(rabbitmq.url, lambda channel: channel.declare_exchange(EXCHANGE, "topic"))
    async with destination(rabbitmq.url, declare=False) as made:
        outcome = await made.send(message())
    assert outcome.kind == "failed"
    assert "no queue takes it" in outcome.reason
    assert EXCHANGE in outcome.reason
    assert await asyncio.to_thread(rabbitmq.depth, QUEUE) == -1


async def test_with_declare_off_a_missing_exchange_is_no_messages_fault(rabbitmq: RabbitServer) -> None:
    async with destination(rabbitmq.url, declare=False) as made:
        outcome = await sent_until(made, lambda outcome: "no exchange" in outcome.reason, message())
    assert outcome.kind == "unreachable"


async def test_a_queue_that_is_unbound_or_deleted_is_repaired_with_the_next_message(rabbitmq: RabbitServer) -> None:
    async def unbind(channel: AbstractChannel) -> None:
        queue = await channel.get_queue(QUEUE)
        await queue.unbind(EXCHANGE, TYPE)

    sent = [message(n) for n in range(3)]
    async with destination(rabbitmq.url) as made:
        assert await made.send(sent[0]) == TAKEN
        await declare(rabbitmq.url, unbind)
        assert await made.send(sent[1]) == TAKEN
        assert await in_queue(rabbitmq.url) == [sent[0].id, sent[1].id]
        await declare(rabbitmq.url, lambda channel: channel.queue_delete(QUEUE))
        assert await made.send(sent[2]) == TAKEN
    assert await in_queue(rabbitmq.url) == [sent[2].id]


async def test_a_deleted_exchange_is_made_again(rabbitmq: RabbitServer) -> None:
    async with destination(rabbitmq.url) as made:
        assert await made.send(message()) == TAKEN
        await declare(rabbitmq.url, lambda channel: channel.exchange_delete(EXCHANGE))
        sent = message()
        outcomes = [await made.send(sent)]
        outcomes.append(await sent_until(made, lambda outcome: outcome is TAKEN, sent))
    assert outcomes[0].kind in ("unreachable", "taken")
    assert sent.id in await in_queue(rabbitmq.url)


async def test_a_full_queue_that_rejects_is_a_failure_and_nothing_is_lost(rabbitmq: RabbitServer) -> None:
    async def full(channel: AbstractChannel) -> None:
        exchange = await channel.declare_exchange(EXCHANGE, "topic", durable=True)
        limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue("other", durable=True, arguments=limits)
        await queue.bind(exchange, TYPE)

    await declare(rabbitmq.url, full)
    sent = [message(n) for n in range(5)]
    async with destination(rabbitmq.url, declare=False) as made:
        outcomes = [await made.send(each) for each in sent]
    taken = [each.id for each, outcome in zip(sent, outcomes, strict=True) if outcome is TAKEN]
    assert await in_queue(rabbitmq.url, "other") == taken
    assert outcomes[-1].kind == "unanswered"
    assert "nack" in outcomes[-1].reason


async def test_a_message_that_the_broker_will_not_have_is_refused_and_hurts_none_of_its_neighbours(
    rabbitmq: RabbitServer,
) -> None:
    poison = message(body=f'"{"x" * 300_001}"')
    sent = [message(n) for n in range(100)]
    async with destination(rabbitmq.url) as made:
        assert await made.send(message()) == TAKEN
        outcomes = await asyncio.gather(*map(made.send, [*sent[:50], poison, *sent[50:]]))
        assert await made.send(message()) == TAKEN
    refused = outcomes.pop(50)
    assert (refused.kind, "larger than" in refused.reason) == ("refused", True)
    assert outcomes == [TAKEN] * 100
    assert {each.id for each in sent} < set(await in_queue(rabbitmq.url))


async def test_a_broker_that_is_away_is_reported_at_once_and_found_when_it_is_there(rabbitmq: RabbitServer) -> None:
    url = f"amqp://guest:secret@127.0.0.1:{free_port()}/"
    async with destination(url, timeout_s=60) as made:
        async with asyncio.timeout(30):
            outcome = await made.send(message())
    assert outcome.kind == "unreachable"
    assert "127.0.0.1" in outcome.reason
    assert "secret" not in outcome.reason


async def test_a_wrong_password_is_unreachable_and_is_shown_nowhere(rabbitmq: RabbitServer) -> None:
    async with destination(rabbitmq.url.replace("guest:guest", "guest:hunter2")) as made:
        outcome = await sent_until(made, lambda outcome: "login" in outcome.reason, message())
    assert outcome.kind == "unreachable"
    assert "hunter2" not in outcome.reason


async def test_tls_works_with_a_private_ca_that_is_configured_and_not_without(rabbitmq: RabbitServer) -> None:
    async with destination(rabbitmq.tls_url, ca_file=rabbitmq.ca_file) as made:
        assert await made.send(message()) == TAKEN
    async with destination(rabbitmq.tls_url) as made:
        outcome = await made.send(message())
    assert outcome.kind == "unreachable"
    assert "CERTIFICATE_VERIFY_FAILED" in outcome.reason


@pytest.mark.parametrize("vhost", ["nowhere", "forbidden"])
async def test_a_virtual_host_that_is_refused_is_named_in_the_same_words_each_time(
    rabbitmq: RabbitServer, vhost: str
) -> None:
    if vhost == "forbidden":
        rabbitmq.evaluate('rabbit_vhost:add(<<"forbidden">>, <<"guest">>)')  # grants no permission to any user
    try:
        reasons = [await refusal(Broker(rabbitmq.url.rstrip("/") + f"/{vhost}")) for _ in range(2)]
    finally:
        if vhost == "forbidden":
            rabbitmq.evaluate('rabbit_vhost:delete(<<"forbidden">>, <<"guest">>)')
    assert reasons[0] == reasons[1]
    assert f"vhost {vhost}" in reasons[0].replace("'", "")
    assert "0x" not in reasons[0]


async def refusal(broker: Broker) -> str:
    with pytest.raises(TROUBLE) as caught:
        await broker.connect()
    return explained(caught.value)


@pytest.mark.parametrize("name", ["größe", "a\nb", "x" * 128, ""], ids=["foreign", "line", "long", "empty"])
def test_an_exchange_that_the_client_library_refuses_is_a_wrong_setting(name: str) -> None:
    with pytest.raises(ValidationError, match="an exchange is named with letters"):
        RabbitSettings(url="amqp://localhost/", exchange=name)


def test_a_ca_file_that_cannot_be_used_or_would_not_be_is_a_wrong_setting(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.touch()
    for url, path in (("amqps://b/", empty), ("amqps://b/", tmp_path / "none.pem"), ("amqp://b/", empty)):
        with pytest.raises(SettingsError, match="ca_file"):
            RabbitDestination("rabbitmq", RabbitSettings.model_validate({"url": url, "ca_file": path}))


@pytest.mark.parametrize("ending", ["stop", "kill"])
async def test_after_a_restart_of_the_broker_it_goes_on_and_what_was_confirmed_is_still_there(
    rabbitmq: RabbitServer, ending: str
) -> None:
    before, during, after = message(1), message(2), message(3)
    async with destination(rabbitmq.url) as made:
        assert await made.send(before) == TAKEN
        await asyncio.to_thread(getattr(rabbitmq, ending))
        outcome = await made.send(during)
        assert outcome.kind == "unreachable"
        await asyncio.to_thread(rabbitmq.start)
        await sent_until(made, lambda outcome: outcome is TAKEN, during)
        assert await made.send(after) == TAKEN
    assert await in_queue(rabbitmq.url) == [before.id, during.id, after.id]


async def test_a_broker_that_does_not_answer_is_a_failure_and_a_late_confirm_saves_the_second_publish(
    rabbitmq: RabbitServer,
) -> None:
    sent = message()
    async with destination(rabbitmq.url, timeout_s=1) as made:
        await sent_until(made, lambda outcome: outcome is TAKEN, message())
        rabbitmq.freeze()
        outcome = await made.send(sent)
        assert outcome.kind == "unanswered"
        assert "no confirm within" in outcome.reason
        rabbitmq.thaw()
        await sent_until(made, lambda outcome: outcome is TAKEN, sent)
    assert (await in_queue(rabbitmq.url)).count(sent.id) == 1


async def test_a_memory_alarm_is_reported_and_makes_no_second_copy_of_a_message(rabbitmq: RabbitServer) -> None:
    sent = [message(n) for n in range(50)]
    async with destination(rabbitmq.url, timeout_s=2) as made:
        await sent_until(made, lambda outcome: outcome is TAKEN, message())
        await asyncio.to_thread(rabbitmq.raise_memory_alarm)
        try:
            first = await asyncio.gather(*map(made.send, sent))
            again = await made.send(message())
        finally:
            await asyncio.to_thread(rabbitmq.clear_memory_alarm)
        assert {outcome.kind for outcome in (*first, again)} == {"unreachable"}
        assert {outcome.reason for outcome in (*first, again)} == {again.reason}
        assert "alarm" in again.reason
        for each in sent:
            await sent_until(made, lambda outcome: outcome is TAKEN, each)
    assert (await in_queue(rabbitmq.url))[-len(sent) :] == [each.id for each in sent]


async def test_a_silent_broker_is_given_up_by_its_heartbeat(rabbitmq: RabbitServer) -> None:
    async with destination(f"{rabbitmq.url}?heartbeat=1", timeout_s=1) as made:
        await sent_until(made, lambda outcome: outcome is TAKEN, message())
        rabbitmq.freeze()
        outcome = await sent_until(made, lambda outcome: outcome.kind == "unreachable", message())
        rabbitmq.thaw()
        assert "heartbeat" in outcome.reason or "no connection" in outcome.reason
        await sent_until(made, lambda outcome: outcome is TAKEN, message())


async def test_a_routing_key_and_a_time_to_live_are_those_of_the_settings(rabbitmq: RabbitServer) -> None:
    async def bind(channel: AbstractChannel) -> None:
        exchange = await channel.declare_exchange(EXCHANGE, "topic", durable=True)
        queue = await channel.declare_queue(QUEUE, durable=True)
        await queue.bind(exchange, "tenant.*.#")

    await declare(rabbitmq.url, bind)
    table = {"declare": False, "routing_key": "tenant.{key}.{type}", "ttl_s": "1h"}
    async with destination(rabbitmq.url, **table) as made:
        assert await made.send(message(ordering_key="seven")) is TAKEN
        too_long = await made.send(message(ordering_key="k" * 250))
    (taken,) = await on_channel(rabbitmq.url, lambda channel: drained(channel, QUEUE))
    assert (taken.routing_key, taken.expiration, taken.type) == (f"tenant.seven.{TYPE}", 3600, TYPE)
    assert too_long.kind == "refused"


async def test_what_no_consumer_takes_in_time_is_removed_by_the_broker(rabbitmq: RabbitServer) -> None:
    async with destination(rabbitmq.url, ttl_s=0.05) as made:
        assert await made.send(message()) is TAKEN
    await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(QUEUE) == 0))


def test_with_a_configured_routing_key_the_operator_makes_the_queues() -> None:
    with pytest.raises(ValueError, match="requires declare = false"):
        RabbitSettings.model_validate({"url": "amqp://localhost", "routing_key": "tenant.{type}"})
