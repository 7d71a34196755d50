"""What integration tests share: commands (`support.commands`) and the brokers (`support.rabbitmq`)."""

from collections.abc import Iterator

import pytest
from support.commands import Run, runner
from support.rabbitmq import RabbitServer


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("status", "--json", url=database.url)`: one command."""
    return runner(monkeypatch, capfd)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    """The one RabbitMQ of this run."""
    server = RabbitServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def rabbitmq(rabbitmq_server: RabbitServer) -> Iterator[RabbitServer]:
    """RabbitMQ with nothing in it. A test may stop, kill and freeze it: the next one finds it well again."""
    rabbitmq_server.recover()
    yield rabbitmq_server
    rabbitmq_server.thaw()
