"""Connect to a Redis server, and find out its version."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from relay.destinations.redis.settings import RedisSettings

DEDUPLICATES_FROM = (8, 6)


def connect(settings: RedisSettings) -> Redis:
    """Return a client that opens connections when they are first used, and repeats no command.

    It needs no right except that for XADD: to name the connection would need another right.
    """
    files = {
        "ssl_ca_certs": settings.ca_file,
        "ssl_certfile": settings.client_cert_file,
        "ssl_keyfile": settings.client_key_file,
    }
    tls: dict[str, Any] = {name: str(path) for name, path in files.items() if path is not None}
    return Redis.from_url(
        settings.address,
        max_connections=settings.concurrency + 1,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
        **tls,
    )


async def version(client: Redis) -> tuple[int, ...]:
    """Return the server's version, as numbers."""
    found = await client.info("server")
    return tuple(int(part) for part in str(found["redis_version"]).split(".") if part.isdigit())


def shown(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
