"""Test a Redis server without sending a message: whether it accepts us, and what it may lose."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from relay.destinations.kind import Probed, Risk
from relay.destinations.redis import server
from relay.destinations.redis.settings import RedisSettings
from relay.destinations.sending import naming


async def probe(name: str, settings: RedisSettings) -> Probed:
    """Connect, ask for the version, and check that the stream's key is a stream, if there is one stream."""
    async with server.connect(settings) as client:
        found = await server.version(client)
        if naming.is_literal(settings.stream):
            kind = (await client.type(settings.stream)).decode()
            if kind not in ("none", "stream"):
                return Probed(False, f"the key {settings.stream} holds a {kind}, not a stream", "the connection")
    how = "is dropped" if found >= server.DEDUPLICATES_FROM else "gets another entry"
    return Probed(
        True,
        f"Redis {server.shown(found)} lets us in; a message that is sent twice {how}",
        "name, connection, TLS, user, password, version; the first message will show whether it may write",
    )


async def risks(name: str, settings: RedisSettings) -> Sequence[Risk]:
    """Return what this Redis may lose, or store twice, after it has answered."""
    async with server.connect(settings) as client:
        twice = _repeats(await server.version(client))
        try:
            found = await _config(client, "appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
        except ResponseError as error:
            what = f"Redis does not show its configuration ({error})"
            return (
                Risk(what, "what it may lose is unknown", "check its appendonly and appendfsync yourself"),
                *twice,
            )
    return [*_losses(found), *twice]


def _repeats(version: tuple[int, ...]) -> Sequence[Risk]:
    if version >= server.DEDUPLICATES_FROM:
        return ()
    return (
        Risk(
            f"Redis {server.shown(version)} has no idempotent publishing",
            "a message that is published again, because its answer was lost, has two entries",
            f"use Redis {server.shown(server.DEDUPLICATES_FROM)}, or consumers that know a message again by its id",
        ),
    )


def _losses(config: dict[str, str]) -> Sequence[Risk]:
    found = []
    if config["appendonly"] != "yes":
        what, loss = "Redis keeps no append-only file", "everything since its last snapshot"
    elif config["appendfsync"] != "always":
        what, loss = f"Redis has appendfsync {config['appendfsync']}", "the messages of the last second or more"
    else:
        what = loss = ""
    if what:
        why = f"when its machine fails, it loses {loss}, and a relay does not send that again"
        found.append(Risk(what, why, "CONFIG SET appendonly yes and appendfsync always, or accept it"))
    if config["maxmemory"] != "0" and config["maxmemory-policy"] != "noeviction":
        what = f"Redis has maxmemory-policy {config['maxmemory-policy']}"
        why = "when its memory is full, it removes keys, and may remove a stream with all its messages"
        found.append(Risk(what, why, "CONFIG SET maxmemory-policy noeviction"))
    return found


async def _config(client: Redis, *names: str) -> dict[str, str]:
    found = await client.config_get(*names)
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
