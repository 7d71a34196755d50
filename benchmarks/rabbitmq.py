"""Relay to RabbitMQ, every message confirmed, against a loop that awaits each confirm before it publishes the next.

    python -m benchmarks.rabbitmq

Both run in turn, on one broker, with the same messages. The relay does all its work: it reads from the
database, publishes, and settles; the loop has its messages in memory and nothing else to do. The result is the ratio of
the medians; the exit code is 1 if it is below 5.

The broker is that of ``--amqp-url``; the run creates its exchange and queue, and deletes them at its end. The database
is ``--database-url``, by default a temporary PostgreSQL (from the ``test`` extra).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import statistics
import sys
import time
from datetime import UTC, datetime

import aio_pika
from aio_pika.abc import AbstractConnection
from rich.console import Console
from rich.table import Table

from benchmarks import delivering
from benchmarks.postgres import database
from outbox import Message
from outbox.checks.ids import new_id
from relay.databases.migrations import upgrade
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.destinations.rabbitmq.wire import headers
from relay.relay import Relay
from relay.settings import Settings

LOOP, RELAY = "one confirm at a time", "relay"
WANTED = 5.0


def main() -> int:
    options = _options()
    logging.disable(logging.WARNING)
    with database(options.database_url) as database_url:
        upgrade(database_url)
        rounds = asyncio.run(_compare(options, database_url))
    if options.json:
        print(json.dumps(rounds))
        return 0
    return 0 if _report(rounds) >= WANTED else 1


def _options() -> argparse.Namespace:
    parser = delivering.parser(__doc__, messages=10_000, per_round=", for the relay")
    parser.add_argument("--amqp-url", default="amqp://guest:guest@127.0.0.1:5672/")
    parser.add_argument("--one-by-one", type=int, default=1_000, help="per round, for the loop")
    parser.add_argument("--concurrency", type=int, default=RabbitSettings.model_fields["concurrency"].default)
    return parser.parse_args()


async def _compare(options: argparse.Namespace, database_url: str) -> dict[str, list[float]]:
    name = f"bench.{secrets.token_hex(4)}"
    broker = RabbitSettings.model_validate(
        {"url": options.amqp_url, "exchange": name, "events": [name], "concurrency": options.concurrency}
    )
    settings = Settings(database_url=database_url, destinations={"rabbitmq": broker}, health_port=0)
    connection = await aio_pika.connect(options.amqp_url)
    try:
        async with Relay(settings, apply=True) as relay:
            await _through_relay(relay, database_url, name, 100)
            rounds: dict[str, list[float]] = {LOOP: [], RELAY: []}
            for _ in range(options.rounds):
                rounds[LOOP].append(await _one_by_one(connection, name, options.one_by_one))
                await _purge(connection, name)
                rounds[RELAY].append(await _through_relay(relay, database_url, name, options.messages))
                await _purge(connection, name)
            return rounds
    finally:
        async with connection.channel() as channel:
            await channel.queue_delete(name)
            await channel.exchange_delete(name)
        await connection.close()


async def _one_by_one(connection: AbstractConnection, name: str, count: int) -> float:
    """Return the messages per second of a loop that awaits each confirm."""
    body = Message(new_id(), name, "outbox", None, None, "", {}, datetime.now(UTC))
    async with connection.channel(publisher_confirms=True, on_return_raises=True) as channel:
        exchange = await channel.get_exchange(name)
        messages = [_message(body, name) for _ in range(count)]
        began_at = time.perf_counter()
        for message in messages:
            await exchange.publish(message, name, mandatory=True)
        return count / (time.perf_counter() - began_at)


def _message(like: Message, name: str) -> aio_pika.Message:
    like.id = new_id()
    return aio_pika.Message(
        json.dumps(delivering.DATA).encode(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=like.id,
        type=name,
        headers=headers(like),
        timestamp=like.created_at,
    )


async def _through_relay(relay: Relay, database_url: str, name: str, count: int) -> float:
    """Return the messages per second of a relay that finds ``count`` committed messages, until the last is settled."""
    await asyncio.to_thread(delivering.fill, database_url, name, count)
    began_at = time.perf_counter()
    await delivering.drained(relay, count)
    return count / (time.perf_counter() - began_at)


async def _purge(connection: AbstractConnection, name: str) -> None:
    async with connection.channel() as channel:
        queue = await channel.get_queue(name)
        await queue.purge()


def _report(rounds: dict[str, list[float]]) -> float:
    table = Table("Round", LOOP, RELAY, "ratio", title="Messages per second, each confirmed")
    medians = {name: statistics.median(found) for name, found in rounds.items()}
    pairs = [*zip(rounds[LOOP], rounds[RELAY], strict=True), (medians[LOOP], medians[RELAY])]
    for number, (loop, relay) in enumerate(pairs, 1):
        name = str(number) if number < len(pairs) else "median"
        table.add_row(name, f"{loop:,.0f}", f"{relay:,.0f}", f"{relay / loop:.1f} x")
    Console().print(table)
    return medians[RELAY] / medians[LOOP]


if __name__ == "__main__":
    sys.exit(main())
