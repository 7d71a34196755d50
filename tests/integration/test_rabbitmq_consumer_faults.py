"""The RabbitMQ consumer through outages, restarts and stops: of the database, the queue, the broker, and itself."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pika
import pytest
from sqlalchemy.orm import Session
from structlog.testing import capture_logs
from support.consuming import apply, baselines, consuming, effect_table, effects, is_empty, with_extraction
from support.databases import Database
from support.postgres import PostgresServer
from support.rabbitmq import DEAD, EXCHANGE, QUEUE, RabbitServer, on_channel
from support.waiting import eventually, eventually_async

from listeners.rabbitmq import Limits
from outbox import Message
from relay.databases.migrations import upgrade


async def test_a_database_that_is_away_costs_no_message_its_attempts(
    rabbitmq: RabbitServer, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lock an SQLite file for longer than any process waits."""
    monkeypatch.setattr("relay.databases.sqlite.connections.BUSY_TIMEOUT_S", 0.05)
    effect_table(sqlite_database)
    async with consuming(rabbitmq, sqlite_database, listener=apply):
        with sqlite_database.engine.connect() as other, capture_logs() as said:
            other.exec_driver_sql("BEGIN EXCLUSIVE")
            await rabbitmq.publish_async(b"{}", message_id="e-1")
            await eventually_async(lambda: sum(each["event"] == "will_try_again" for each in said) > 5)
            other.rollback()
        await eventually_async(lambda: effects(sqlite_database) == ["e-1"])
        await is_empty(rabbitmq)
    assert await asyncio.to_thread(rabbitmq.depth, DEAD) == -1


async def test_a_postgres_that_is_stopped_costs_no_message_its_attempts_either(
    rabbitmq: RabbitServer, private_postgres: Callable[..., PostgresServer]
) -> None:
    server = private_postgres()
    upgrade(server.url())
    database = Database("postgres", server.url())
    effect_table(database)
    database.dispose()
    async with consuming(rabbitmq, database, listener=apply):
        await rabbitmq.publish_async(b"{}", message_id="e-1")
        await eventually_async(lambda: effects(database) == ["e-1"])
        server.stop()
        with capture_logs() as said:
            await rabbitmq.publish_async(b"{}", message_id="e-2")
            await eventually_async(lambda: sum(each["event"] == "will_try_again" for each in said) > 5)
        server.start()
        database.dispose()
        await eventually_async(lambda: effects(database) == ["e-1", "e-2"])
        await is_empty(rabbitmq)
    database.dispose()
    assert await asyncio.to_thread(rabbitmq.depth, DEAD) == -1


async def test_an_orderly_stop_finishes_what_is_worked_on_and_gives_back_the_rest(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    effect_table(sqlite_database)
    hold, started = threading.Event(), threading.Event()

    def slow(message: Message, session: Session) -> None:
        started.set()
        hold.wait(20)
        apply(message, session)

    limits = Limits(prefetch=10, concurrency=1, grace_s=20)
    async with consuming(rabbitmq, sqlite_database, listener=slow, limits=limits) as consumer:
        for n in range(3):
            await rabbitmq.publish_async(b"{}", message_id=f"e-{n}")
        await eventually_async(started.is_set)
        consumer.stop()
        await eventually_async(lambda: asyncio.to_thread(lambda: not rabbitmq.has_consumers(QUEUE)))
        hold.set()
    assert effects(sqlite_database) == ["e-0"]
    assert [each.message_id for each in await asyncio.to_thread(rabbitmq.take_all)] == ["e-1", "e-2"]


async def test_a_deleted_queue_is_made_again_and_the_log_says_that_it_was_deleted(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    effect_table(sqlite_database)
    async with consuming(rabbitmq, sqlite_database, listener=apply):
        with capture_logs() as said:
            await on_channel(rabbitmq.url, lambda channel: channel.queue_delete(QUEUE))
            await eventually_async(lambda: any(each["event"] == "consuming" for each in said))
        await rabbitmq.publish_async(b"{}", message_id="e-1", routing_key=QUEUE, exchange=EXCHANGE)
        await eventually_async(lambda: effects(sqlite_database) == ["e-1"])
    events = [each["event"] for each in said]
    assert [event for event in events if event in ("consuming_ended", "queue_created", "consuming")] == [
        "consuming_ended",
        "queue_created",
        "consuming",
    ]


@pytest.mark.parametrize("is_late", [False, True], ids=["noticed", "noticed when it is there again"])
async def test_a_consumer_whose_queue_is_replaced_consumes_again(
    rabbitmq: RabbitServer, sqlite_database: Database, is_late: bool
) -> None:
    """A broker that noticed it late used to resume the consumer itself, and then to lose what it sent there."""
    effect_table(sqlite_database)
    async with consuming(rabbitmq, sqlite_database, listener=apply):
        with capture_logs() as said:
            with held_up(rabbitmq) if is_late else nullcontext():
                replace_queue(rabbitmq)  # in one step: when the consumer learns of it, the queue is there again
            await eventually_async(lambda: any(each["event"] == "consuming" for each in said))
        await rabbitmq.publish_async(b"{}", message_id="e-1")
        await eventually_async(lambda: effects(sqlite_database) == ["e-1"])
    assert [each["event"] for each in said] == ["consuming_ended", "consuming"]


@contextmanager
def held_up(rabbitmq: RabbitServer) -> Iterator[None]:
    """Suspend the broker's processes that send to consumers, as on a busy machine."""
    own = rabbitmq.evaluate("[pid_to_list(Each) || Each <- rabbit_channel:list_local()]")
    ours = f"[list_to_pid(Each) || Each <- {own}]"
    rabbitmq.evaluate(f"[sys:suspend(Each) || Each <- {ours}]")
    try:
        yield
    finally:
        rabbitmq.evaluate(f"[sys:resume(Each) || Each <- {ours}]")


def replace_queue(rabbitmq: RabbitServer) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    channel = connection.channel()
    channel.queue_delete(QUEUE)
    channel.queue_declare(QUEUE, durable=True)
    connection.close()


@pytest.mark.parametrize(
    ("database", "ending"), [("sqlite", "stop"), ("postgres", "kill")], indirect=["database"]
)  # not each with each: the broker does not depend on the database, and each restart takes seconds
async def test_after_a_restart_of_the_broker_it_goes_on_and_repeats_no_effect(
    rabbitmq: RabbitServer, database: Database, ending: str
) -> None:
    effect_table(database)
    async with consuming(rabbitmq, database, listener=apply):
        await rabbitmq.publish_async(b"{}", message_id="e-1")
        await eventually_async(lambda: effects(database) == ["e-1"])
        with capture_logs() as said:
            await asyncio.to_thread(getattr(rabbitmq, ending))
            await eventually_async(lambda: any(each["event"] == "consuming_ended" for each in said))
        await asyncio.to_thread(rabbitmq.start)
        await eventually_async(lambda: asyncio.to_thread(rabbitmq.has_consumers, QUEUE), deadline_s=40)
        await rabbitmq.publish_async(b"{}", message_id="e-2")
        await eventually_async(lambda: effects(database) == ["e-1", "e-2"])


def test_the_command_consumes_until_it_is_told_to_stop(rabbitmq: RabbitServer, database: Database, spawn: Any) -> None:
    with_extraction(database)
    process = spawn("outbox", "consume", env={"DATABASE_URL": database.url, "AMQP_URL": rabbitmq.url})
    process.wait_for_output("consuming", deadline_s=30)
    rabbitmq.publish(b'{"contentId": "c-1"}')
    eventually(lambda: baselines(database) == ["c-1"])
    process.terminate()
    assert process.wait() == 0
    assert rabbitmq.depth(QUEUE) == 0
    assert "guest:guest" not in process.stderr


def test_without_a_broker_configured_the_command_says_what_to_set(sqlite_database: Database, spawn: Any) -> None:
    process = spawn("outbox", "consume", env={"DATABASE_URL": sqlite_database.url})
    assert process.wait() == 3
    assert "AMQP_URL" in process.stderr
