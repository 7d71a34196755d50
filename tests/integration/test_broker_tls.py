"""Destinations on NATS and Redis over TLS, against servers with a certificate of a private authority."""

import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.nats import NatsServer, _renewed
from support.redis import PASSWORD, RedisServer
from support.servers import Server, running
from support.tls import Certificates

from outbox.testing.destination_contract import World, message


class TlsRedis(RedisServer):
    """Redis that speaks TLS only."""

    def command(self) -> Sequence[str]:
        files = Certificates(self.directory)
        tls = {
            "port": 0,
            "tls-port": self.port,
            "tls-cert-file": files.server,
            "tls-key-file": files.server,
            "tls-ca-cert-file": files.authority,
            "tls-auth-clients": "no",
        }
        return [*super().command(), *(str(part) for key, value in tls.items() for part in (f"--{key}", value))]

    def answers(self) -> bool:
        return Server.answers(self)

    @property
    def url(self) -> str:
        return f"rediss://:{PASSWORD}@127.0.0.1:{self.port}/0"


class TlsNats(NatsServer):
    """NATS that speaks TLS only."""

    def command(self) -> Sequence[str]:
        command = super().command()
        files = Certificates(self.directory)
        self.tls = ssl.create_default_context(cafile=files.authority)
        with Path(command[-1]).open("a") as config:
            config.write(f'\ntls {{ cert_file: "{files.server}", key_file: "{files.server}" }}\n')
        return command

    def answers(self) -> bool:
        return Server.answers(self)


@pytest.fixture(params=[TlsRedis, TlsNats], ids=lambda made: made.__name__)
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with running(request.param()) as made:
        yield made


async def outcome(server: Any, **table: Any) -> tuple[str, str]:
    kind = "redis" if isinstance(server, RedisServer) else "nats"
    if kind == "nats":
        await server.on_jetstream(_renewed)
    world = World({"kind": kind, "url": server.url, **table}, taken=list)
    async with world.destination() as destination:
        found = await destination.send(message())
    return found.kind, found.reason


async def test_a_server_is_trusted_with_the_authority_of_the_settings_and_not_without(server: Any) -> None:
    assert await outcome(server, ca_file=str(server.directory / "ca.pem")) == ("taken", "")
    kind, reason = await outcome(server)
    assert (kind, "certificate" in reason.lower()) == ("unreachable", True), reason
