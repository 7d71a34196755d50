"""The relay and RabbitMQ, with the integration guide's programs at the other end, and with faults in mid-stream."""

import asyncio
import json
import textwrap
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from sqlalchemy import text
from support.databases import Database
from support.fleet import end_owning_sessions
from support.processes import Process, Spawner
from support.rabbitmq import DEAD, EXCHANGE, QUEUE, RabbitServer, on_channel
from support.waiting import eventually

from outbox import emit

# As printed in the guide, apart from the port: the guide's program connects to localhost.
GUIDES_PUBLISHER = textwrap.dedent(
    """
    import pika
    import json

    def publish_extraction_completed(content_id: str):
        connection = pika.BlockingConnection(
            pika.ConnectionParameters(host='localhost')
        )
        channel = connection.channel()

        channel.exchange_declare(
            exchange='extraction.events',
            exchange_type='topic'
        )

        message = json.dumps({'contentId': content_id})

        channel.basic_publish(
            exchange='extraction.events',
            routing_key='extraction.completed',
            body=message
        )

        connection.close()
        print(f"✅ Published extraction.completed event for {content_id}")
    """
)

QUICK = """
[destinations.rabbitmq]
kind = "rabbitmq"
url = "${AMQP_URL}"
events = ["extraction.completed"]
timeout_s = 2
backoff_s = 0.1
backoff_max_s = 0.5
"""

Fault = Callable[[RabbitServer], object]


def guides_publisher(rabbitmq: RabbitServer, content_id: str) -> None:
    scope: dict[str, Callable[[str], None]] = {}
    pika.connection.Parameters.DEFAULT_PORT = rabbitmq.port
    exec(GUIDES_PUBLISHER, scope)
    scope["publish_extraction_completed"](content_id)


def guides_consumer(rabbitmq: RabbitServer, count: int) -> list[str]:
    """amqplib's assertQueue and consume, in pika: the same frames, nothing declared but the plain durable queue."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    channel = connection.channel()
    channel.queue_declare(queue="extraction.completed", durable=True)
    got = []
    for method, _, body in channel.consume("extraction.completed", inactivity_timeout=20):
        assert method is not None, f"nothing came after {got}"
        got.append(json.loads(body)["contentId"])
        channel.basic_ack(method.delivery_tag)
        if len(got) == count:
            break
    connection.close()
    return got


def say(database: Database, *content_ids: str, key: str | None = None) -> list[str]:
    with database.engine.begin() as connection:
        return [emit(connection, "extraction.completed", {"contentId": each}, ordering_key=key) for each in content_ids]


def start_relay(spawn: Spawner, database: Database, rabbitmq: RabbitServer) -> Process:
    variables = {"DATABASE_URL": database.url, "AMQP_URL": rabbitmq.url, "OUTBOX_HEALTH_PORT": "0"}
    return spawn("outbox", "relay", env=variables)


def all_settled(database: Database) -> bool:
    return database.scalar("SELECT count(*) FROM outbox_message") == 0


def test_our_relay_feeds_the_guides_consumer_with_nothing_but_amqp_url(
    rabbitmq: RabbitServer, database: Database, spawn: Spawner
) -> None:
    say(database, "c-1", "c-2")
    relay = start_relay(spawn, database, rabbitmq)
    assert sorted(guides_consumer(rabbitmq, 2)) == ["c-1", "c-2"]
    say(database, "c-3")
    assert guides_consumer(rabbitmq, 1) == ["c-3"]
    eventually(lambda: all_settled(database))
    relay.terminate()
    assert relay.wait() == 0


def test_a_consumer_of_the_guides_that_was_there_first_is_no_obstacle(
    rabbitmq: RabbitServer, sqlite_database: Database, spawn: Spawner
) -> None:
    async def assert_queue(channel: AbstractChannel) -> None:
        await channel.declare_queue("extraction.completed", durable=True)

    asyncio.run(on_channel(rabbitmq.url, assert_queue))
    say(sqlite_database, "c-1")
    start_relay(spawn, sqlite_database, rabbitmq)
    assert guides_consumer(rabbitmq, 1) == ["c-1"]


def test_our_consumer_receives_from_the_guides_publisher_in_either_order_of_start(
    rabbitmq: RabbitServer, sqlite_database: Database, spawn: Spawner
) -> None:
    guides_publisher(rabbitmq, "lost: no queue is bound yet")
    process = spawn("outbox", "consume", env={"DATABASE_URL": sqlite_database.url, "AMQP_URL": rabbitmq.url})
    process.wait_for_output("consuming", deadline_s=30)
    guides_publisher(rabbitmq, "c-1")
    process.wait_for_output("unknown content: 'c-1'")
    process.terminate()
    assert process.wait() == 0
    asyncio.run(on_channel(rabbitmq.url, lambda channel: channel.exchange_delete(EXCHANGE)))
    process = spawn("outbox", "consume", env={"DATABASE_URL": sqlite_database.url, "AMQP_URL": rabbitmq.url})
    process.wait_for_output("consuming", deadline_s=30)
    guides_publisher(rabbitmq, "c-2")
    process.wait_for_output("unknown content: 'c-2'")
    assert rabbitmq.depth(DEAD) == 2


def test_a_relay_killed_between_publish_and_settle_repeats_what_it_published_and_loses_nothing(
    rabbitmq: RabbitServer, postgres_database: Database, spawn: Spawner
) -> None:
    ids = say(postgres_database, "c-1", "c-2", "c-3")
    with postgres_database.engine.connect() as holding:
        holding.execute(text("SELECT 1 FROM outbox_message FOR UPDATE"))  # readable, but locked against moving
        relay = start_relay(spawn, postgres_database, rabbitmq)
        eventually(lambda: rabbitmq.depth(QUEUE) == 3, deadline_s=30)
        relay.kill()
        end_owning_sessions(postgres_database.url)  # and its last request to settle, as if it had never been sent
        holding.rollback()
    start_relay(spawn, postgres_database, rabbitmq)
    eventually(lambda: all_settled(postgres_database), deadline_s=40)
    copies = copies_of(rabbitmq.take_all())
    assert {message_id: len(bodies) for message_id, bodies in copies.items()} == dict.fromkeys(ids, 2)
    assert all(len(set(bodies)) == 1 for bodies in copies.values())


def copies_of(taken: list[AbstractIncomingMessage]) -> dict[str, list[bytes]]:
    copies = defaultdict(list)
    for each in taken:
        copies[each.message_id or ""].append(each.body)
    return copies


def delete_exchange(rabbitmq: RabbitServer) -> None:
    asyncio.run(on_channel(rabbitmq.url, lambda channel: channel.exchange_delete(EXCHANGE)))


def unbind_queue(rabbitmq: RabbitServer) -> None:
    async def unbind(channel: AbstractChannel) -> None:
        queue = await channel.get_queue(QUEUE)
        await queue.unbind(EXCHANGE, QUEUE)

    asyncio.run(on_channel(rabbitmq.url, unbind))


def nothing(_: RabbitServer) -> None:
    """Do nothing: the relay repairs it by itself."""


@pytest.mark.parametrize(
    ("fault", "repair", "may_repeat"),
    [
        pytest.param(RabbitServer.stop, RabbitServer.start, True, id="the broker is stopped and started"),
        pytest.param(RabbitServer.kill, RabbitServer.start, True, id="the broker is killed and started"),
        pytest.param(delete_exchange, nothing, True, id="the exchange is deleted"),
        pytest.param(unbind_queue, nothing, False, id="the queue is unbound"),
        pytest.param(
            RabbitServer.raise_memory_alarm,
            RabbitServer.clear_memory_alarm,
            True,
            id="a memory alarm blocks publishers",
        ),
    ],
)
def test_nothing_is_lost_and_keys_keep_their_order_when(
    rabbitmq: RabbitServer,
    postgres_database: Database,
    spawn: Spawner,
    tmp_path: Path,
    fault: Fault,
    repair: Fault,
    may_repeat: bool,
) -> None:
    tmp_path.joinpath("outbox.toml").write_text(QUICK)
    start_relay(spawn, postgres_database, rabbitmq)
    said: dict[str, list[str]] = defaultdict(list)

    def stream(count: int) -> None:
        for n in range(count):
            for key in ("a", "b", "c"):
                said[key] += say(postgres_database, f"{key}-{n}-0", f"{key}-{n}-1", key=key)
            said[""] += say(postgres_database, *(f"free-{n}-{i}" for i in range(20)))

    stream(20)
    eventually(lambda: rabbitmq.depth(QUEUE) > 50, deadline_s=30)
    fault(rabbitmq)
    stream(20)
    repair(rabbitmq)
    stream(5)
    eventually(lambda: all_settled(postgres_database), deadline_s=60)
    taken = rabbitmq.take_all()
    copies = copies_of(taken)
    assert set(copies) == {message_id for ids in said.values() for message_id in ids}
    assert all(len(set(bodies)) == 1 for bodies in copies.values())
    assert may_repeat or len(taken) == len(copies)
    order = list(copies)  # by first arrival
    for key in ("a", "b", "c"):
        mine = set(said[key])
        assert [each for each in order if each in mine] == said[key]
    assert postgres_database.scalar("SELECT count(*) FROM outbox_delivery") == 0
