"""The other side of each kind of destination, for the contract that all kinds keep (`outbox.testing`)."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from outbox import Message
from outbox.checks.ids import new_id
from outbox.testing.destination_contract import Taken, World
from support.kafka import KafkaServer, MockCluster
from support.nats import NatsServer
from support.rabbitmq import RabbitServer
from support.receivers import Receiver
from support.redis import RedisServer

SECRET = "secret-of-the-api-" + "s" * 16


def listener_world() -> World:
    """Return a listener that remembers its calls."""
    taken: list[Taken] = []

    def listener(message: Message) -> None:
        taken.append(Taken(message.id, message.body))

    return World({"kind": "listener", "listener": listener}, taken=lambda: taken)


@contextmanager
def http_world(**table: Any) -> Iterator[World]:
    """Run a server on its own event loop, so that it answers even while the test's loop is blocked."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    receiver = Receiver()

    def on_loop(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(60)

    @contextmanager
    def away() -> Iterator[None]:
        on_loop(receiver.close())
        try:
            yield
        finally:
            on_loop(receiver.open())

    on_loop(receiver.open())
    try:
        settings = {"kind": "http", "url": receiver.url, "secret": SECRET, **table}
        yield World(settings, taken=lambda: list(_posted(receiver)), away=away)
    finally:
        on_loop(receiver.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _posted(receiver: Receiver) -> Iterator[Taken]:
    for request in receiver.requests:
        if request.method != "POST":
            continue
        if "batch" in (request.header("content-type") or ""):
            for event in json.loads(request.body):
                yield Taken(event["id"], json.dumps(event["data"]).encode())
        else:
            yield Taken(unquote(request.header("ce-id") or ""), request.body)


def rabbitmq_world(server: RabbitServer) -> World:
    """Return an empty broker; messages that are taken from its queue are remembered."""
    taken: list[Taken] = []

    def look() -> list[Taken]:
        if server.depth("extraction.completed") > 0:
            taken.extend(Taken(each.message_id or "", each.body) for each in server.take_all())
        return taken

    table = {"kind": "rabbitmq", "url": server.url, "events": ["extraction.completed"]}
    return World(table, taken=look, away=server.away)


def redis_world(server: RedisServer, **table: Any) -> World:
    """Return an empty Redis."""

    def look() -> list[Taken]:
        return [Taken(each[b"id"].decode(), each[b"data"]) for each in server.entries("extraction.completed")]

    return World({"kind": "redis", "url": server.url, **table}, taken=look, away=server.away)


def nats_world(server: NatsServer, **table: Any) -> World:
    """Return a NATS server with an empty stream."""

    def look() -> list[Taken]:
        return [Taken(unquote(each.headers["ce-id"]), each.data or b"") for each in server.messages()]

    return World({"kind": "nats", "url": server.url, **table}, taken=look, away=server.away)


def kafka_world(server: KafkaServer, **table: Any) -> World:
    """Return a broker with an empty topic."""
    topic = f"topic-{new_id()}"
    server.create_topic(topic)

    def look() -> list[Taken]:
        return [Taken(each.headers["ce_id"].decode(), each.value) for each in server.records(topic)]

    settings = {"kind": "kafka", "bootstrap_servers": server.bootstrap, "topic": topic, "timeout_s": 2, **table}
    return World(settings, taken=look, away=None if isinstance(server, MockCluster) else server.away)
