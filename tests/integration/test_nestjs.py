"""docs/nestjs.md shows a consumer for each broker: installed, started and fed by our destinations as printed."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.guardian import guardian
from support.kafka import Tansu
from support.nats import PASSWORD, USER, NatsServer
from support.rabbitmq import RabbitServer
from support.redis import RedisServer
from support.servers import running
from support.waiting import eventually
from support.worlds import nats_world, rabbitmq_world, redis_world

from outbox.testing.destination_contract import World, assert_taken, message

DOCUMENT = Path(__file__).parents[2] / "docs" / "nestjs.md"
PRINTED = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALL_S = 240
START_S = 60

Start = Callable[..., Callable[[], str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs, and what they need installed."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm on this machine: install it (apt-get install npm)")
    folder = tmp_path_factory.mktemp("nestjs")
    for name, content in PRINTED.findall(DOCUMENT.read_text()):
        (folder / name).write_text(content)
    command = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def start(project: Path, tmp_path: Path) -> Iterator[Start]:
    """`start("kafka.ts", KAFKA_BROKERS="…")`: run a program; return a function that returns its output so far."""
    running: list[subprocess.Popen[bytes]] = []

    def run(program: str, **environ: str) -> Callable[[], str]:
        node = shutil.which("node")
        assert node is not None
        said = tmp_path / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [node, "node_modules/tsx/dist/cli.mjs", program],
                cwd=project,
                env={"PATH": str(Path(node).parent), "HOME": str(tmp_path), **environ},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        guardian().watch(process.pid)
        running.append(process)
        return said.read_text

    yield run
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)  # tsx runs the program in a child process
        process.wait()
        guardian().forget(process.pid)


def deliver(world: World) -> list[str]:
    """Deliver three events; return what a consumer that takes them prints."""
    sent = [message(key="c-1") for _ in range(3)]

    async def send() -> None:
        async with world.destination() as destination:
            for each in sent:
                assert_taken(await destination.send(each))

    asyncio.run(send())
    return [f"took {each.id} {each.data['contentId']}" for each in sent]


def assert_takes(said: Callable[[], str], wanted: list[str]) -> None:
    def taken() -> list[str]:
        return [line for line in said().splitlines() if line.startswith("took ")]

    eventually(lambda: taken() == wanted, deadline_s=START_S, what=f"the consumer takes {wanted}\n{said()}")


@pytest.mark.timeout(INSTALL_S + 2 * START_S)
def test_a_consumer_of_kafka_takes_what_we_send(start: Start) -> None:
    with running(Tansu()) as server:
        server.create_topic("extraction.completed", 1)
        wanted = deliver(World({"kind": "kafka", "bootstrap_servers": server.bootstrap}, taken=list))
        assert_takes(start("kafka.ts", KAFKA_BROKERS=server.bootstrap), wanted)


@pytest.mark.timeout(INSTALL_S + 2 * START_S)
def test_a_consumer_of_rabbitmq_takes_what_we_send(start: Start, rabbitmq: RabbitServer) -> None:
    wanted = deliver(rabbitmq_world(rabbitmq))
    assert_takes(start("rabbitmq.ts", AMQP_URL=rabbitmq.url), wanted)
    eventually(lambda: rabbitmq.depth("extraction.completed") == 0)  # all are acknowledged


@pytest.mark.timeout(INSTALL_S + 2 * START_S)
def test_a_consumer_of_nats_takes_what_we_send(start: Start, nats: NatsServer) -> None:
    wanted = deliver(nats_world(nats))
    variables = {"NATS_SERVER": f"127.0.0.1:{nats.port}", "NATS_USER": USER, "NATS_PASSWORD": PASSWORD}
    assert_takes(start("nats.ts", **variables), wanted)


@pytest.mark.timeout(INSTALL_S + 2 * START_S)
def test_a_consumer_of_redis_takes_what_we_send(start: Start, redis: RedisServer) -> None:
    wanted = deliver(redis_world(redis))
    assert_takes(start("redis.ts", REDIS_URL=redis.url), wanted)
