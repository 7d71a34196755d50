"""How the Kafka destination interprets a broker's answers, and how a message looks in a topic."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from support import sending
from support.kafka import SPREAD, KafkaServer, MockCluster, Tansu
from support.ports import free_port
from support.sending import message, sent_until_taken
from support.servers import running
from support.waiting import eventually_async

from outbox.checks.ids import new_id
from relay.admin.destinations.probe import probe
from relay.settings import Settings

TYPE = "extraction.completed"

# https://kafka.apache.org/protocol#protocol_error_codes
REQUEST_TIMED_OUT, TOO_LARGE, INVALID_TOPIC, NOT_ENOUGH_REPLICAS, FORBIDDEN = 7, 10, 17, 19, 29
NOT_PERMITTED, OUT_OF_ORDER, WRONG_EPOCH, INVALID_RECORD = 44, 45, 47, 87

settings_of = partial(sending.settings_of, "kafka")
destination = partial(sending.destination, "kafka")


@pytest.fixture
def topic(kafka: KafkaServer) -> str:
    """An empty topic."""
    name = f"topic-{new_id()}"
    kafka.create_topic(name)
    return name


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    """A cluster that answers with the errors that the test sets."""
    with running(MockCluster()) as server:
        yield server


@pytest.fixture
def name() -> str:
    """A topic that the broker creates on its first use."""
    return f"topic-{new_id()}"


async def ids_in(server: KafkaServer, topic: str) -> list[str]:
    return [each.headers["ce_id"].decode() for each in await server.records_of(topic)]


async def test_a_record_is_an_event_with_its_key_and_its_bytes_and_as_old_as_its_publish(
    kafka: KafkaServer, topic: str
) -> None:
    began_ms = int(time.time() * 1000)
    sent = message(subject="contents/1", ordering_key="c-1", headers={"x-tenant": "7"})
    async with destination(bootstrap_servers=kafka.bootstrap, topic=topic) as made:
        assert (await made.send(sent)).kind == "taken"
    (record,) = await kafka.records_of(topic)
    assert (record.key, record.value) == (b"c-1", b'{"contentId": "c-1"}')
    assert record.headers["ce_time"] == b"2026-01-01T10:00:00Z"
    if not isinstance(kafka, MockCluster):  # the mock cluster has its own clock
        assert record.timestamp_ms >= began_ms
    assert (record.headers["ce_type"], record.headers["x-tenant"]) == (TYPE.encode(), b"7")


async def test_records_of_one_key_are_in_one_partition_in_their_order(kafka: KafkaServer, topic: str) -> None:
    rounds = [[message(ordering_key=f"k{key}") for key in range(20)] for _ in range(5)]
    async with destination(bootstrap_servers=kafka.bootstrap, topic=topic) as made:
        for each in rounds:
            assert (await made.send_many(each)).kind == "taken"
    found = await kafka.records_of(topic)
    assert len({(record.key, record.partition) for record in found}) == 20
    for number in range(20):
        mine = [record.headers["ce_id"].decode() for record in found if record.key == f"k{number}".encode()]
        assert mine == [each[number].id for each in rounds]


async def test_keys_of_other_producers_meet_ours(kafka: KafkaServer, topic: str) -> None:
    confluent = pytest.importorskip("confluent_kafka")
    other = confluent.Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"})
    keys = [f"key-{number}" for number in range(30)]
    for key in keys:
        other.produce(topic, key=key, value=b"other", headers={"ce_id": b"other"})
    assert await asyncio.to_thread(other.flush, 20) == 0
    async with destination(bootstrap_servers=kafka.bootstrap, topic=topic) as made:
        await made.send_many([message(ordering_key=key) for key in keys])
    assert len({(record.key, record.partition) for record in await kafka.records_of(topic)}) == len(keys)


async def test_a_turn_that_is_larger_than_a_batch_goes_in_several(kafka: KafkaServer, topic: str) -> None:
    sent = [message(ordering_key="same") for _ in range(60)]
    async with destination(bootstrap_servers=kafka.bootstrap, topic=topic, max_batch_bytes=5000) as made:
        assert (await made.send_many(sent)).kind == "taken"
    assert await ids_in(kafka, topic) == [each.id for each in sent]


async def test_what_a_frozen_broker_had_is_stored_once_and_taken_when_it_is_back(
    kafka: KafkaServer, topic: str
) -> None:
    sent = [message(ordering_key=f"k{number}") for number in range(10)]
    async with destination(bootstrap_servers=kafka.bootstrap, topic=topic, timeout_s=1) as made:
        await sent_until_taken(made, message())
        kafka.freeze()
        late = await made.send_many(sent)
        again = await made.send_many(sent)
        kafka.thaw()
        assert {each.kind for each in (*late, *again)} == {"unanswered"}
        assert "did not confirm it within 1 s" in late[0].reason
        await sent_until_taken(made, *sent)
    found = await ids_in(kafka, topic)
    assert sorted(set(found) & {each.id for each in sent}) == sorted(each.id for each in sent)
    assert len([each for each in found if each in {one.id for one in sent}]) == len(sent), "no record is there twice"


async def test_what_is_not_confirmed_for_too_long_is_given_up_with_its_producer(
    kafka: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("destination", "producer"):
        monkeypatch.setattr(f"relay.destinations.kafka.{module}.GIVE_UP_S", 0.5)
    async with destination(bootstrap_servers=kafka.bootstrap, topic=topic, timeout_s=0.5) as made:
        await sent_until_taken(made, message())
        first = await made._producers.get()
        kafka.freeze()
        lost = message()
        await made.send(lost)
        await eventually_async(lambda: not first.is_open)
        assert "given up" in (await made.send(lost)).reason
        kafka.thaw()
        await sent_until_taken(made, message())
        assert await made._producers.get() is not first


async def test_closing_beside_several_silent_brokers_leaves_no_task(mock: MockCluster) -> None:
    def requests() -> list[asyncio.Task[Any]]:
        return [each for each in asyncio.all_tasks() if "_send_produce_req" in repr(each)]

    before = asyncio.all_tasks()
    async with destination(bootstrap_servers=mock.bootstrap, topic=SPREAD) as made:
        assert (await made.send(message())).kind == "taken"
        mock.freeze()
        sending = asyncio.create_task(made.send_many([message(ordering_key=f"k{number}") for number in range(40)]))
        await eventually_async(lambda: len(requests()) > 1)
    await sending
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("mechanism", "said"),
    [("PLAIN", "closed"), ("SCRAM-SHA-256", "does not let relay in"), ("SCRAM-SHA-512", "does not let relay in")],
)
async def test_a_login_that_is_refused_is_an_outage_and_tells_no_password(mechanism: str, said: str) -> None:
    server = Tansu()
    server.options = ("--authentication",)
    with running(server):
        login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "username": "relay"}
        async with destination(bootstrap_servers=server.bootstrap, password="correct-horse", **login) as made:
            outcomes = [await made.send(message()), await made.send_many([message(), message()])]
    assert {each.kind for each in outcomes} == {"unreachable"}
    assert "correct-horse" not in "".join(each.reason for each in outcomes)
    assert all(said in each.reason for each in outcomes)


async def test_a_refused_connection_is_an_outage() -> None:
    async with destination(bootstrap_servers=f"127.0.0.1:{free_port()}") as made:
        outcome = await made.send(message())
    assert outcome.kind == "unreachable"
    assert "Connect call failed" in outcome.reason


async def test_a_type_that_cannot_name_a_topic_is_refused_alone(mock: MockCluster) -> None:
    async with destination(bootstrap_servers=mock.bootstrap, topic="events.{type}") as made:
        outcomes = await made.send_many([message("no topic"), message()])
    assert [each.kind for each in outcomes] == ["refused", "taken"]


async def test_a_batch_that_is_rejected_over_a_record_is_unrolled(mock: MockCluster, name: str) -> None:
    sent = [message() for _ in range(4)]
    async with destination(bootstrap_servers=mock.bootstrap, topic=name) as made:
        assert (await made.send(message())).kind == "taken"
        mock.answer_with(TOO_LARGE, 0, TOO_LARGE)
        outcomes = await made.send_many(sent)
    assert [each.kind for each in outcomes] == ["taken", "refused", "taken", "taken"]
    assert [each for each in await ids_in(mock, name) if each == sent[1].id] == []


@pytest.mark.parametrize(("error", "kind"), [(NOT_PERMITTED, "refused"), (INVALID_RECORD, "failed")])
async def test_a_record_that_is_rejected_costs_the_ones_after_it_nothing(
    mock: MockCluster, name: str, error: int, kind: str
) -> None:
    async with destination(bootstrap_servers=mock.bootstrap, topic=name) as made:
        sent = [message(ordering_key="k") for _ in range(3)]
        assert (await made.send(sent[0])).kind == "taken"
        mock.answer_with(error)
        assert (await made.send(message(ordering_key="k"))).kind == kind
        for each in sent[1:]:
            assert (await made.send(each)).kind == "taken"
    assert await ids_in(mock, name) == [each.id for each in sent]


@pytest.mark.parametrize("error", [OUT_OF_ORDER, WRONG_EPOCH])
async def test_a_producer_with_a_fatal_error_is_replaced(mock: MockCluster, name: str, error: int) -> None:
    async with destination(bootstrap_servers=mock.bootstrap, topic=name) as made:
        sent = message()
        assert (await made.send(message())).kind == "taken"
        mock.answer_with(error)
        assert (await made.send(sent)).kind == "unreachable"
        assert (await made.send(sent)).kind == "taken"


@pytest.mark.parametrize("error", [INVALID_TOPIC, FORBIDDEN])
async def test_what_is_wrong_with_a_topic_waits_for_evidence_whether_others_are_taken(
    mock: MockCluster, name: str, error: int
) -> None:
    async with destination(bootstrap_servers=mock.bootstrap, topic=name) as made:
        mock.answer_with(error)
        assert (await made.send(message())).kind == "unanswered"


async def test_too_few_replicas_are_an_outage_and_a_hiccup_is_none(mock: MockCluster, name: str) -> None:
    async with destination(bootstrap_servers=mock.bootstrap, topic=name) as made:
        mock.answer_with(REQUEST_TIMED_OUT)
        assert (await made.send(message())).kind == "taken"
    async with destination(bootstrap_servers=mock.bootstrap, topic=name, timeout_s=1) as made:
        mock.answer_with(*[NOT_ENOUGH_REPLICAS] * 100)
        assert (await made.send(message())).kind == "unanswered"


async def test_idempotence_is_used_where_it_is_and_reported_where_not(kafka: KafkaServer, topic: str) -> None:
    async with destination(bootstrap_servers=kafka.bootstrap, topic=topic) as made:
        assert (await made.send(message())).kind == "taken"
        assert (await made._producers.get()).is_idempotent is kafka.is_idempotent
    found = await probe(
        "kafka", Settings(destinations={"kafka": settings_of(bootstrap_servers=kafka.bootstrap, topic=topic)})
    )
    assert (found.well, "without idempotence" in found.said) == (True, isinstance(kafka, Tansu))
