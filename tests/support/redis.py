"""A Redis of the test run's own, which keeps what it has answered for."""

from collections.abc import Sequence
from typing import Any

import pytest

from support.servers import Server, program

PASSWORD = "password-of-redis"


class RedisServer(Server):
    """One Redis with a password, whose every write is on disk before it is answered."""

    def __init__(self) -> None:
        pytest.importorskip("redis")
        super().__init__("redis")
        self._program = program("redis-server", "redis-server")

    def command(self) -> Sequence[str]:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.directory,
            "requirepass": PASSWORD,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "daemonize": "no",
        }
        return [self._program, *(str(part) for key, value in options.items() for part in (f"--{key}", value))]

    def answers(self) -> bool:
        import redis

        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        import redis

        return redis.Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=5)

    @property
    def version(self) -> tuple[int, ...]:
        with self.client() as client:
            return tuple(map(int, client.info("server")["redis_version"].split(".")))

    def use(self, *command: object) -> Any:
        """Run one command."""
        with self.client() as client:
            return client.execute_command(*command)

    def entries(self, stream: str) -> list[dict[bytes, bytes]]:
        """What is in a stream, in its order."""
        with self.client() as client:
            return [fields for _, fields in client.xrange(stream)]

    def recover(self) -> None:
        super().recover()
        self.use("CONFIG", "SET", "maxmemory", "0")
        self.use("CONFIG", "SET", "appendfsync", "always")
        self.use("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.use("FLUSHALL")
