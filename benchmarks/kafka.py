"""Relay to Kafka, every record confirmed, against the bare batch API of the client library.

    python -m benchmarks.kafka

Both in one run, in turn, on one broker, with the same messages. The relay does all its work: it reads from the
database, makes records, publishes, and settles; the loop has its messages in memory and nothing else to do. The
exit code is 1 if the relay's median is below 30,000 messages/s and below 0.6 of the loop's.

The broker is that of ``--bootstrap-servers``, by default the one in ``noida-db``'s wheel (from the ``test`` extra). The
database is ``--database-url``, by default a PostgreSQL of this run's own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from benchmarks.postgres import database
from outbox import Message, emit_many
from outbox.checks.ids import new_id
from relay.destinations.kafka.producer import Producer
from relay.destinations.kafka.settings import KafkaSettings
from relay.platform.migrations import upgrade
from relay.relay import Relay
from relay.settings import Settings

FLOOR, RELAY = "bare batch API", "relay"
WANTED_S = 30_000
WANTED_OF_FLOOR = 0.6  # where the broker allows less
PARTITIONS = 12
PAYLOAD = {"contentId": "c-0197c2f0", "note": "x" * 150}
START_S = 20.0


def main() -> int:
    options = _options()
    logging.disable(logging.CRITICAL)
    with broker(options.bootstrap_servers) as servers, database(options.database_url) as database_url:
        upgrade(database_url)
        rounds = asyncio.run(_compare(options, servers, database_url))
    if options.json:
        print(json.dumps(rounds))
        return 0
    return 0 if _report(rounds) else 1


@contextlib.contextmanager
def broker(servers: str | None) -> Iterator[str]:
    """Yield the servers that were named, or a broker of this run's own."""
    if servers is not None:
        yield servers
        return
    program = Path(str(files("noida_db") / "noida-db"))
    os.chmod(program, 0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="outbox-kafka-") as folder:
        command = [str(program), "start", "--only", "kafka", "--data-dir", folder, "--kafka-port", str(port)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_for(port)
                yield f"127.0.0.1:{port}"
            finally:
                process.kill()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _options() -> argparse.Namespace:
    fields = KafkaSettings.model_fields
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap-servers")
    parser.add_argument("--database-url")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=30_000, help="per round, for each")
    parser.add_argument("--batch", type=int, default=fields["batch"].default)
    parser.add_argument("--concurrency", type=int, default=fields["concurrency"].default)
    parser.add_argument("--json", action="store_true", help="print what each round measured, and judge nothing")
    return parser.parse_args()


async def _compare(options: argparse.Namespace, servers: str, database_url: str) -> dict[str, list[float]]:
    topic = f"bench.{secrets.token_hex(4)}"
    await _create(servers, topic)
    kafka = KafkaSettings.model_validate(
        {
            "bootstrap_servers": servers,
            "topic": topic,
            "batch": options.batch,
            "concurrency": options.concurrency,
            "timeout_s": 30,
        }
    )
    settings = Settings(database_url=database_url, destinations={"kafka": kafka}, health_port=0)
    producer = await Producer.open(kafka, "bench")
    try:
        async with Relay(settings, apply=True) as relay:
            await _through_relay(relay, database_url, 100)
            rounds: dict[str, list[float]] = {FLOOR: [], RELAY: []}
            for _ in range(options.rounds):
                rounds[FLOOR].append(await _bare(producer, topic, options.batch, options.messages))
                rounds[RELAY].append(await _through_relay(relay, database_url, options.messages))
            return rounds
    finally:
        await producer.close()


async def _create(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()


async def _bare(producer: Producer, topic: str, batch: int, count: int) -> float:
    """Messages per second of a loop that hands out a batch for each of four partitions, and waits for all of them."""
    now = datetime.now(UTC)
    body = json.dumps(PAYLOAD)
    messages = [Message(new_id(), "bench", "outbox", None, None, body, {}, now) for _ in range(count)]
    began_at = time.perf_counter()
    for begin in range(0, count, batch * 4):
        turns = [messages[at : at + batch] for at in range(begin, min(begin + batch * 4, count), batch)]
        sent = [await producer.send(topic, number % PARTITIONS, turn) for number, turn in enumerate(turns)]
        await asyncio.gather(*(confirmed for parts in sent for _, confirmed in parts))
    return count / (time.perf_counter() - began_at)


async def _through_relay(relay: Relay, database_url: str, count: int) -> float:
    """Return the messages per second of a relay that finds ``count`` committed messages, until the last is settled."""
    await asyncio.to_thread(_fill, database_url, count)
    began_at = time.perf_counter()
    delivered = 0
    while delivered < count:
        drained = await relay.drain(look=False)
        delivered += drained.delivered
        await asyncio.sleep(0)
    return count / (time.perf_counter() - began_at)


def _fill(database_url: str, count: int) -> None:
    engine = sa.create_engine(sa.make_url(database_url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        emit_many(connection, [("bench", PAYLOAD)] * count)
    engine.dispose()


def _report(rounds: dict[str, list[float]]) -> bool:
    table = Table("Round", FLOOR, RELAY, "ratio", title="Messages per second, each confirmed")
    medians = {name: statistics.median(found) for name, found in rounds.items()}
    pairs = [*zip(rounds[FLOOR], rounds[RELAY], strict=True), (medians[FLOOR], medians[RELAY])]
    for number, (floor, relay) in enumerate(pairs, 1):
        name = str(number) if number < len(pairs) else "median"
        table.add_row(name, f"{floor:,.0f}", f"{relay:,.0f}", f"{relay / floor:.2f} x")
    Console().print(table)
    return medians[RELAY] >= min(WANTED_S, WANTED_OF_FLOOR * medians[FLOOR])


if __name__ == "__main__":
    sys.exit(main())
