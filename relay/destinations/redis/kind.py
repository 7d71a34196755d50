"""The kind ``redis``: an entry in a stream for each message."""

from __future__ import annotations

from collections.abc import Sequence

from relay.destinations.contract import Destination
from relay.destinations.kind import Kind, Probed, Risk
from relay.destinations.redis.settings import RedisSettings
from relay.platform.database import Database


def _build(name: str, settings: RedisSettings, database: Database) -> Destination:
    from relay.destinations.redis.destination import RedisDestination

    return RedisDestination(name, settings)


def _check(name: str, settings: RedisSettings) -> None:
    from relay.destinations.redis import server

    server.connect(settings)


async def _probe(name: str, settings: RedisSettings) -> Probed:
    from relay.destinations.redis.probe import probe

    return await probe(name, settings)


async def _risks(name: str, settings: RedisSettings) -> Sequence[Risk]:
    from relay.destinations.redis.probe import risks

    return await risks(name, settings)


def _warnings(settings: RedisSettings, origin: str) -> Sequence[str]:
    if settings.maxlen is None:
        return ()
    return (f"loses messages: with maxlen = {settings.maxlen}, Redis drops the oldest entries, read or not",)


KIND = Kind(
    name="redis",
    settings=RedisSettings,
    build=_build,
    probe=_probe,
    check=_check,
    warnings=_warnings,
    risks=_risks,
    extra="redis",
)
