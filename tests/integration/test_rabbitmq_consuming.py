"""What the RabbitMQ consumer does with the messages of its queue."""

import asyncio
import threading
from typing import Any

import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs
from support.consuming import apply, baselines, consuming, effect_table, effects, is_empty, with_extraction
from support.databases import Database
from support.rabbitmq import DEAD, QUEUE, RabbitServer, on_channel
from support.waiting import eventually_async

from listeners.rabbitmq import Limits, Source
from listeners.rabbitmq.reading import id_of
from outbox import Message
from relay.decide.backoff import Policy


async def test_our_messages_and_the_guides_bare_ones_build_one_baseline_each(
    rabbitmq: RabbitServer, database: Database
) -> None:
    for content_id in ("c-1", "c-2"):
        with_extraction(database, content_id)
    async with consuming(rabbitmq, database):
        headers = {"cloudEvents_id": "e-1", "cloudEvents_specversion": "1.0"}
        await rabbitmq.publish_async(b'{"contentId": "c-1"}', message_id="e-1", headers=headers)
        await rabbitmq.publish_async(b'{"contentId": "c-2"}')
        await eventually_async(lambda: baselines(database) == ["c-1", "c-2"])
    assert await asyncio.to_thread(rabbitmq.depth, QUEUE) == 0
    assert await asyncio.to_thread(rabbitmq.depth, DEAD) == -1


async def test_mark_and_effect_happen_once_however_often_a_message_comes(
    rabbitmq: RabbitServer, database: Database
) -> None:
    effect_table(database)
    async with consuming(rabbitmq, database, listener=apply):
        for _ in range(5):
            await rabbitmq.publish_async(b'{"contentId": "c-1"}', message_id="e-1")
            await rabbitmq.publish_async(b'{"contentId": "c-2"}')
            await rabbitmq.publish_async(b' {"contentId":"c-2"} ')
        await rabbitmq.publish_async(b'{"contentId": "c-3"}', message_id="e-last")
        await eventually_async(lambda: "e-last" in effects(database))
        await is_empty(rabbitmq)
    assert effects(database) == ["content:c-2", "e-1", "e-last"]


@pytest.mark.parametrize(
    ("body", "properties", "reason"),
    [
        (b"not json", {}, "not JSON"),
        (b"\xff\xfe", {}, "UTF-8"),
        (b'{"contentId": NaN}', {}, "NaN"),
        (b"{}", {"content_encoding": "gzip"}, "gzip"),
        (b"{}", {"message_id": "a\x00b"}, "printable"),
        (b"[" * 100_000, {}, "nested"),
    ],
)
async def test_what_cannot_be_read_ends_beside_the_queue_with_its_reason_and_origin(
    rabbitmq: RabbitServer, sqlite_database: Database, body: bytes, properties: dict[str, Any], reason: str
) -> None:
    async with consuming(rabbitmq, sqlite_database):
        await rabbitmq.publish_async(body, headers={"x-tenant": "7"}, type="t", **properties)
        await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(DEAD) == 1))
        await is_empty(rabbitmq)
    [letter] = await asyncio.to_thread(rabbitmq.take_all, DEAD)
    assert (letter.body, letter.type, letter.headers["x-tenant"]) == (body, "t", "7")
    assert letter.message_id == properties.get("message_id", id_of(body))
    assert letter.headers["x-outbox-queue"] == QUEUE
    assert letter.headers["x-outbox-exchange"] == ""
    assert letter.headers["x-outbox-routing-key"] == QUEUE
    assert "x-outbox-died-at" in letter.headers
    assert str(letter.headers["x-outbox-reason"]).startswith("unreadable: ")
    assert reason in str(letter.headers["x-outbox-reason"])


async def test_what_the_listener_rejects_is_a_dead_letter_at_once(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    async with consuming(rabbitmq, sqlite_database):
        await rabbitmq.publish_async(b'{"contentId": "unheard-of"}', message_id="e-1")
        await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(DEAD) == 1))
    [letter] = await asyncio.to_thread(rabbitmq.take_all, DEAD)
    assert letter.message_id == "e-1"
    assert "unknown content" in str(letter.headers["x-outbox-reason"])
    assert letter.headers["x-outbox-attempts"] == 1


async def test_a_failure_is_tried_again_later_and_only_a_limited_number_of_times(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    attempts: list[tuple[str, int]] = []

    def fails(message: Message) -> None:
        attempts.append((message.id, message.attempt))
        if message.id == "always" or message.attempt < 3:
            raise RuntimeError("not today")

    async with consuming(rabbitmq, sqlite_database, listener=fails):
        await rabbitmq.publish_async(b"{}", message_id="twice")
        await rabbitmq.publish_async(b"{}", message_id="always")
        await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(DEAD) == 1))
        await eventually_async(lambda: len(attempts) == 6)
        await is_empty(rabbitmq)
    assert sorted(attempts) == [(name, n) for name in ("always", "twice") for n in (1, 2, 3)]
    [letter] = await asyncio.to_thread(rabbitmq.take_all, DEAD)
    assert letter.message_id == "always"
    assert "RuntimeError: not today" in str(letter.headers["x-outbox-reason"])
    assert letter.headers["x-outbox-attempts"] == 3


async def test_a_quorum_queue_is_consumed_too(rabbitmq: RabbitServer, sqlite_database: Database) -> None:
    """It refuses the argument with which a classic queue's consumer learns of each loss of the queue."""
    attempts: list[str] = []
    quorum = Source(queue_type="quorum")
    async with consuming(rabbitmq, sqlite_database, listener=lambda m: attempts.append(m.id), source=quorum):
        await rabbitmq.publish_async(b"{}", message_id="e-1")
        await eventually_async(lambda: attempts == ["e-1"])


async def test_a_message_that_fails_delays_none_of_the_others_and_waits_its_time(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    attempts: list[str] = []

    def fails(message: Message) -> None:
        attempts.append(message.id)
        if message.id == "poison":
            raise RuntimeError("never")

    patient = Limits(concurrency=1, retry=Policy(backoff_s=3600, backoff_max_s=3600), grace_s=5)
    others = [f"e-{n}" for n in range(10)]
    async with consuming(rabbitmq, sqlite_database, listener=fails, limits=patient):
        for message_id in ("poison", *others):
            await rabbitmq.publish_async(b"{}", message_id=message_id)
        await eventually_async(lambda: attempts[-1:] == others[-1:])
    assert attempts == ["poison", *others]
    assert [each.message_id for each in await asyncio.to_thread(rabbitmq.take_all)] == ["poison"]


async def test_a_call_that_hangs_keeps_one_thread_and_is_a_dead_letter_in_the_end(
    rabbitmq: RabbitServer, postgres_database: Database
) -> None:
    """Its message is not started again meanwhile: further calls would hang too, until no thread is left."""
    go, attempts = threading.Event(), []

    def hangs(message: Message, session: Session) -> None:
        attempts.append(message.id)
        if message.id == "h":
            go.wait(60)

    limits = Limits(concurrency=2, timeout_s=1, retry=Policy(max_attempts=3, backoff_s=0.02, backoff_max_s=0.1))
    async with consuming(rabbitmq, postgres_database, listener=hangs, limits=limits):
        try:
            await rabbitmq.publish_async(b"{}", message_id="h")
            await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(DEAD) == 1))
            for n in range(5):
                await rabbitmq.publish_async(b"{}", message_id=f"e-{n}")
            await is_empty(rabbitmq)
        finally:
            go.set()
    [letter] = await asyncio.to_thread(rabbitmq.take_all, DEAD)
    assert (letter.message_id, letter.headers["x-outbox-attempts"]) == ("h", 3)
    assert attempts.count("h") == 1
    assert set(attempts) == {*(f"e-{n}" for n in range(5)), "h"}  # one that overran on a busy machine is made again
    assert postgres_database.scalar("SELECT count(*) FROM inbox_message") == 5


async def test_a_message_without_a_thread_because_all_of_them_hang_is_not_charged(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    go, attempts = threading.Event(), []

    def hangs(message: Message) -> None:
        attempts.append(message.id)
        if message.id.startswith("h"):
            go.wait(60)

    limits = Limits(concurrency=2, timeout_s=0.5, retry=Policy(max_attempts=3, backoff_s=0.02, backoff_max_s=0.1))
    async with consuming(rabbitmq, sqlite_database, listener=hangs, limits=limits):
        try:
            with capture_logs() as said:
                for message_id in ("h-1", "h-2"):
                    await rabbitmq.publish_async(b"{}", message_id=message_id)
                await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(DEAD) == 2))
                await rabbitmq.publish_async(b"{}", message_id="e-1")
                starved = "calls that took longer than 0.5 s hold all threads"
                await eventually_async(lambda: sum(each.get("reason") == starved for each in said) > 3)
        finally:
            go.set()
        await is_empty(rabbitmq)
    assert set(attempts[2:]) == {"e-1"}  # once, unless it overran on a busy machine


@pytest.mark.parametrize("statement", ["SELECT nothing FROM nowhere", "SELECT pg_sleep(5)"])
async def test_wrong_sql_and_slow_sql_are_the_messages_fault_on_either_database(
    rabbitmq: RabbitServer, database: Database, statement: str
) -> None:
    """The database does answer, so a consumer that waits for it would wait for ever."""
    if database.kind == "postgres":
        name = database.scalar("SELECT current_database()")
        database.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '100ms'")
        database.engine.dispose()

    def asks(message: Message, session: Session) -> None:
        session.execute(text(statement))

    async with consuming(rabbitmq, database, listener=asks):
        await rabbitmq.publish_async(b"{}", message_id="e-1")
        await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(DEAD) == 1))


async def test_no_more_than_the_prefetch_is_held_and_no_more_than_the_concurrency_is_worked_on(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    hold, running, most = threading.Event(), threading.Semaphore(0), [0, 0]
    lock = threading.Lock()

    def slow(message: Message) -> None:
        with lock:
            most[0] += 1
            most[1] = max(most)
        running.release()
        hold.wait(60)
        with lock:
            most[0] -= 1

    limits = Limits(prefetch=5, concurrency=2, grace_s=20)
    async with consuming(rabbitmq, sqlite_database, listener=slow, limits=limits):
        for n in range(12):
            await rabbitmq.publish_async(b"{}", message_id=f"e-{n}")
        await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(QUEUE) == 7))
        try:
            for _ in range(limits.concurrency):
                assert await asyncio.to_thread(running.acquire, timeout=30), "as many are worked on as may be"
        finally:
            hold.set()
        await is_empty(rabbitmq)
    assert most[1] == 2


async def test_a_dead_letter_is_confirmed_before_its_original_is_acknowledged(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    """While the dead-letter queue takes nothing, the original stays."""

    async def takes_nothing(channel: AbstractChannel) -> None:
        await channel.declare_queue(DEAD, durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})

    await on_channel(rabbitmq.url, takes_nothing)
    async with consuming(rabbitmq, sqlite_database):
        with capture_logs() as said:
            await rabbitmq.publish_async(b"not json", message_id="e-1")
            await eventually_async(lambda: any(each["event"] == "will_try_again" for each in said))
        assert not await asyncio.to_thread(rabbitmq.is_drained, QUEUE)
        await on_channel(rabbitmq.url, lambda channel: channel.queue_delete(DEAD))
        await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(DEAD) == 1))
        await is_empty(rabbitmq)
