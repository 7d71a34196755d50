"""Relay to Kafka, every record confirmed, against two floors: loops that do a part of its work and nothing else.

    python -m benchmarks.kafka

All contestants run in turn, on one broker, with the same messages. The broker rests before each contestant, so that
none pays for the records of the previous one.

- *bare batch API*: the messages are in memory; a loop makes records of them and publishes those.
- *read, publish, settle*: two threads. One executes the relay's statements, which read a page and move the previous
  page to the history; in the meantime the other thread publishes the page. No dispatching, no lanes, no retries, no
  verdicts.
- *relay*: everything.

A relay cannot be faster than the second floor, no matter how fast the first one is: the database works 10 to 14 µs per
message. The exit code is 1 if the relay's median is below 30,000 messages/s and below 0.6 of the second floor.

The report also shows this process's processor time per message in microseconds: other programs on the machine change
it less.

The broker is that of ``--bootstrap-servers``, by default the one in ``noida-db``'s wheel (from the ``test`` extra). The
database is ``--database-url``, by default a temporary PostgreSQL.
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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Self

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from benchmarks import delivering
from benchmarks.ours import PAGE, _session
from benchmarks.postgres import Scratch, database
from outbox import Message
from outbox.checks.ids import new_id
from outbox_cli.commands.run.relay import tune_interpreter
from relay.databases.migrations import upgrade
from relay.databases.store.rows import Row
from relay.destinations.kafka.producer import Producer
from relay.destinations.kafka.settings import KafkaSettings
from relay.relay import Relay
from relay.settings import Settings

BARE, FLOOR, RELAY = "bare batch API", "read, publish, settle", "relay"
WANTED_S = 30_000
WANTED_OF_FLOOR = 0.6  # sufficient if the machine is too slow for WANTED_S
PARTITIONS = 12
START_S = 20.0
REST_S = 4.0  # a broker may continue to work after it has confirmed: noida-db for two seconds, 7 to 11 µs a message


class Measured(NamedTuple):
    """One round of one contestant."""

    rate: float  # messages/s
    cpu_us: float  # processor time of this process for a message


def main() -> int:
    options = _options()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    tune_interpreter()
    with (
        broker(options.bootstrap_servers) as servers,
        database(options.database_url) as server_url,
        Scratch(server_url) as scratch,
    ):
        urls = [scratch.create(name) for name in ("relay", "floor")]
        for url in urls:
            upgrade(url)
        rounds = asyncio.run(_compare(options, servers, *urls))
    if options.json:
        print(json.dumps(rounds))
        return 0
    return 0 if _report(rounds) else 1


@contextlib.contextmanager
def broker(servers: str | None) -> Iterator[str]:
    """Yield the servers that were named, or a temporary broker."""
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
    parser = delivering.parser(__doc__, messages=30_000, per_round=", for each")
    parser.add_argument("--bootstrap-servers")
    parser.add_argument("--batch", type=int, default=fields["batch"].default)
    parser.add_argument("--concurrency", type=int, default=fields["concurrency"].default)
    return parser.parse_args()


async def _compare(
    options: argparse.Namespace, servers: str, relay_url: str, floor_url: str
) -> dict[str, list[Measured]]:
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
    settings = Settings(database_url=relay_url, destinations={"kafka": kafka}, health_port=0)
    count, messages = options.messages, _in_memory(options.messages)
    producer = await Producer.open(kafka, "bench")
    publisher = Publisher(producer, topic, options.batch)
    try:
        async with Relay(settings, apply=True) as relay, Owner(floor_url) as owner:
            contestants = {
                BARE: (None, lambda: publisher.publish(messages)),
                FLOOR: (floor_url, lambda: owner.move(publisher)),
                RELAY: (relay_url, lambda: delivering.drained(relay, count)),
            }
            await asyncio.to_thread(delivering.fill, relay_url, "bench", 100)
            await delivering.drained(relay, 100)
            rounds: dict[str, list[Measured]] = {name: [] for name in contestants}
            for _ in range(options.rounds):
                for name, (url, contestant) in contestants.items():
                    await asyncio.sleep(REST_S)
                    if url is not None:  # just before, because the relay begins as soon as they are committed
                        await asyncio.to_thread(delivering.fill, url, "bench", count)
                    rounds[name].append(await _measured(contestant, count))
            return rounds
    finally:
        await producer.close()


async def _measured(contestant: Callable[[], Awaitable[int]], count: int) -> Measured:
    began_at, cpu_before_s = time.perf_counter(), time.process_time()
    done = await contestant()
    took_s, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_before_s
    assert done == count, f"{done} of {count} were delivered"
    return Measured(count / took_s, cpu_s / count * 1e6)


async def _create(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()


def _in_memory(count: int) -> list[Message]:
    now, body = datetime.now(UTC), json.dumps(delivering.DATA)
    return [Message(new_id(), "bench", "outbox", None, None, body, {}, now) for _ in range(count)]


class Publisher:
    """Hands out a batch for each of four partitions, and waits for all of them.

    Args:
        producer: Publishes the batches.
        topic: The topic to publish to.
        batch: Messages in a record batch.
    """

    def __init__(self, producer: Producer, topic: str, batch: int) -> None:
        self._producer = producer
        self._topic = topic
        self._batch = batch

    async def publish(self, messages: Sequence[Message]) -> int:
        step = self._batch * 4
        for begin in range(0, len(messages), step):
            ends = range(begin, min(begin + step, len(messages)), self._batch)
            turns = [messages[at : at + self._batch] for at in ends]
            sent = [await self._producer.send(self._topic, number, turn) for number, turn in enumerate(turns)]
            await asyncio.gather(*(confirmed for parts in sent for _, confirmed in parts))
        return len(messages)


class Owner:
    """A session that owns all shards of a database, as a relay's does, in a separate thread."""

    def __init__(self, url: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._url = url

    async def __aenter__(self) -> Self:
        self._session, self._cursors = await self._call(_session, self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._call(self._session.close)
        self._thread.shutdown()

    async def move(self, publisher: Publisher) -> int:
        """Publish and settle all ready messages; return their number."""
        settled, published = 0, []
        _, rows = await self._call(self._turn, published)
        while rows or published:
            publishing = asyncio.create_task(publisher.publish([_message(row) for row in rows]))
            count, following = await self._call(self._turn, published)
            await publishing
            settled, published, rows = settled + count, rows, following
        return settled

    def _turn(self, published: list[Row]) -> tuple[int, list[Row]]:
        settled = self._session.settling.settle_plain(published, durable=False)()
        return settled, self._session.reading.read_ready(self._cursors, PAGE).messages

    async def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _message(row: Row) -> Message:
    return Message(row[0], *row[4:11])


def _report(rounds: dict[str, list[Measured]]) -> bool:
    table = Table("", "messages/s", "µs computed", f"of: {FLOOR}", title="Medians, each message confirmed")
    medians = {name: Measured(*map(statistics.median, zip(*found, strict=True))) for name, found in rounds.items()}
    for name, (rate, cpu_us) in medians.items():
        table.add_row(name, f"{rate:,.0f}", f"{cpu_us:.1f}", f"{rate / medians[FLOOR].rate:.2f} x")
    Console().print(table)
    return medians[RELAY].rate >= min(WANTED_S, WANTED_OF_FLOOR * medians[FLOOR].rate)


if __name__ == "__main__":
    sys.exit(main())
