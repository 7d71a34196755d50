"""No message stops a consumer: one that cannot be decoded is a dead letter, and those behind it are processed."""

import asyncio
import ssl
import threading
from dataclasses import replace

import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from support.consuming import QUICK, apply, consuming, effect_table, effects, is_empty
from support.databases import Database
from support.malformed import ATTACKS, LATIN, UNREADABLE, Malformed, header, long, properties, publish, short
from support.rabbitmq import DEAD, EXCHANGE, QUEUE, RabbitServer, on_channel
from support.waiting import eventually_async

from listeners.rabbitmq.frames import TolerantConnection
from listeners.rabbitmq.properties import decode
from listeners.rabbitmq.reading import Incoming, Unreadable, understand
from outbox import Message
from relay.destinations.rabbitmq.amqp import Broker


async def everything_arrives(channel: AbstractChannel) -> None:
    """Bind the queue so that it gets every message of the exchange, with any routing key."""
    queue = await channel.get_queue(QUEUE, ensure=False)
    await queue.bind(EXCHANGE, "#")


async def published(rabbitmq: RabbitServer, message: Malformed) -> None:
    await asyncio.to_thread(publish, rabbitmq, message, EXCHANGE)


async def has_dead(rabbitmq: RabbitServer, count: int, what: str = "the dead letter") -> None:
    await eventually_async(lambda: asyncio.to_thread(lambda: rabbitmq.depth(DEAD) == count), what=what)


async def letters(rabbitmq: RabbitServer) -> list[Incoming]:
    """Return the contents of the dead-letter queue, undecoded: the usual libraries cannot decode them either."""
    connection = await Broker(rabbitmq.url).connect(connection_class=TolerantConnection)
    found = []
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(DEAD, ensure=False)
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            found.append(Incoming.of(message))
    return found


def keeps_all_of(letter: Incoming, original: Malformed) -> bool:
    """Return whether a letter has the original's headers, or its properties in octets."""
    decoded = decode(original.properties)
    kept = letter.properties.headers.get("x-outbox-properties")
    return kept == original.properties or decoded.headers.items() <= letter.properties.headers.items()


async def test_what_comes_behind_a_malformed_message_is_done_and_the_message_is_a_dead_letter(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    effect_table(sqlite_database)
    done: list[str] = []
    async with consuming(rabbitmq, sqlite_database, listener=apply):
        await on_channel(rabbitmq.url, everything_arrives)
        for attack, message in ATTACKS.items():
            await published(rabbitmq, message)
            await rabbitmq.publish_async(b"{}", message_id=f"behind {attack}")
            done.append(f"behind {attack}")
            await eventually_async(lambda: len(effects(sqlite_database)) == len(done), what=done[-1])
            await has_dead(rabbitmq, len(done), f"the dead letter of {attack}")
        await is_empty(rabbitmq)
    assert effects(sqlite_database) == sorted(done)
    for (attack, message), letter in zip(ATTACKS.items(), await letters(rabbitmq), strict=True):
        assert (letter.body, attack) == (message.body, attack)
        assert str(letter.properties.headers["x-outbox-reason"]).startswith("unreadable: ")
        if "x-outbox-dropped" not in letter.properties.headers:
            assert (keeps_all_of(letter, message), attack) == (True, attack)


async def test_a_letter_whose_headers_leave_no_room_for_it_goes_without_them_and_says_so(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    async with consuming(rabbitmq, sqlite_database):
        await on_channel(rabbitmq.url, everything_arrives)
        await published(rabbitmq, header(b"x", b"S" + long(b"x" * 131_000), UNREADABLE))
        await has_dead(rabbitmq, 1)
    [letter] = await letters(rabbitmq)
    assert "x" not in letter.properties.headers
    assert letter.properties.headers["x-outbox-dropped"] == (
        "all headers: its properties take 131,013 bytes, and there is room for 32,768"
    )
    assert letter.properties.headers["x-outbox-queue"] == QUEUE


async def test_a_letter_is_sent_to_no_queue_but_its_own(rabbitmq: RabbitServer, sqlite_database: Database) -> None:
    """RabbitMQ copies a message with a CC to the queues that it names: each letter would make another original."""
    async with consuming(rabbitmq, sqlite_database):
        await on_channel(rabbitmq.url, everything_arrives)
        await published(rabbitmq, ATTACKS["a copy for the queue it is in"])
        await has_dead(rabbitmq, 1)
        await is_empty(rabbitmq)
        await rabbitmq.publish_async(UNREADABLE)
        await has_dead(rabbitmq, 2)
    first, second = await letters(rabbitmq)
    assert first.properties.headers["x-outbox-dropped"] == "CC: a copy would go where they say"
    assert "x-outbox-dropped" not in second.properties.headers


async def test_letters_that_the_broker_returns_are_sent_again_each_of_them(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    """This holds for any properties, even if two letters have the same id."""
    async with consuming(rabbitmq, sqlite_database):
        await on_channel(rabbitmq.url, everything_arrives)
        await published(rabbitmq, Malformed(body=UNREADABLE))
        await has_dead(rabbitmq, 1)
        await on_channel(rabbitmq.url, lambda channel: channel.queue_delete(DEAD))
        same = properties(message_id=short(b"e-1"), app_id=short(LATIN))
        await asyncio.gather(*(published(rabbitmq, same) for _ in range(4)))
        await has_dead(rabbitmq, 4)
        await is_empty(rabbitmq)
    assert [letter.text("message_id") for letter in await letters(rabbitmq)] == ["e-1"] * 4


async def test_a_body_that_is_too_long_is_not_read_and_its_letter_has_all_of_it(
    rabbitmq: RabbitServer, sqlite_database: Database
) -> None:
    body = b'{"contentId": "%b"}' % (b"c" * 2000)
    async with consuming(rabbitmq, sqlite_database, limits=replace(QUICK, max_body_bytes=1000)):
        await rabbitmq.publish_async(body, message_id="e-1")
        await has_dead(rabbitmq, 1)
    [letter] = await letters(rabbitmq)
    assert (letter.body, letter.text("message_id")) == (body, "e-1")
    reason = "unreadable: its body has 2,017 bytes, and at most 1,000 are read"
    assert letter.properties.headers["x-outbox-reason"] == reason


@pytest.mark.parametrize(
    ("body", "headers", "is_large"),
    [(b"[]", {}, False), (b"[]" + b" " * 20_000, {}, True), (b"[]", {"x": "x" * 20_000}, True)],
)
async def test_what_is_large_is_read_in_a_thread_of_its_own(
    rabbitmq: RabbitServer,
    sqlite_database: Database,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
    headers: dict[str, str],
    is_large: bool,
) -> None:
    read_in: list[threading.Thread] = []

    def watched(message: AbstractIncomingMessage, limit: int) -> tuple[Incoming, Message | Unreadable]:
        read_in.append(threading.current_thread())
        return understand(message, limit)

    monkeypatch.setattr("listeners.rabbitmq.session.understand", watched)
    async with consuming(rabbitmq, sqlite_database, listener=lambda message: None):
        await rabbitmq.publish_async(body, headers=headers)
        await is_empty(rabbitmq)
    assert [thread is not threading.main_thread() for thread in read_in] == [is_large]


async def test_what_comes_over_tls_is_repaired_too(rabbitmq: RabbitServer) -> None:
    await asyncio.to_thread(rabbitmq.use, lambda channel: channel.declare_queue(QUEUE))
    await asyncio.to_thread(publish, rabbitmq, ATTACKS["a Latin-1 app_id"], "")
    broker = Broker(rabbitmq.tls_url, ssl.create_default_context(cafile=rabbitmq.ca_file))
    connection = await broker.connect(connection_class=TolerantConnection)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(QUEUE, ensure=False)
        incoming = Incoming.of(await queue.get(no_ack=True))
    assert "UnicodeDecodeError" in str(incoming.properties.problem)
