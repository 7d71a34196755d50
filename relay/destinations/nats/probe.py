"""Test a NATS server without sending a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.destinations.kind import Probed, Risk
from relay.destinations.nats.connection import NatsConnection
from relay.destinations.nats.settings import NatsSettings
from relay.destinations.nats.streams import known

CHECKED = "name, connection, TLS, user and password"


async def probe(name: str, settings: NatsSettings) -> Probed:
    """Connect, and look for the streams that take our subjects."""
    found = await _streams(settings, f"outbox probe: {name}")
    if missing := [subject for subject, stream in found.items() if stream is None]:
        what = f"no stream {settings.stream}" if settings.stream else f"no stream for {', '.join(missing)}"
        if not settings.declare:
            return Probed(False, f"the server lets us in, and has {what}", CHECKED)
        return Probed(True, f"the server lets us in; it has {what} yet: a relay creates it", CHECKED)
    streams = ", ".join(sorted({stream.config.name for stream in found.values()}))
    what = f", and takes our subjects into {streams}" if streams else ""
    return Probed(True, f"the server lets us in{what}", f"{CHECKED}; whether it may store shows with the first message")


async def risks(name: str, settings: NatsSettings) -> Sequence[Risk]:
    """Return what the streams of our subjects may lose after they have acknowledged it."""
    found = await _streams(settings, f"outbox doctor: {name}")
    streams = {stream.config.name: stream.config for stream in found.values() if stream is not None}
    return [risk for config in streams.values() for risk in _risks(config)]


async def _streams(settings: NatsSettings, name: str) -> dict[str, Any]:
    connection = await NatsConnection.open(settings, name)
    try:
        return await known(connection.client, settings)
    finally:
        await connection.close()


def _risks(config: Any) -> Sequence[Risk]:
    found = []
    if str(config.storage).endswith(("memory", "MEMORY")):
        why = "it is empty after a restart of the server, and a relay does not send acknowledged messages again"
        found.append(Risk(f"the stream {config.name} is in memory", why, "make it a stream with storage = file"))
    elif config.num_replicas == 1:
        why = "when its machine fails, data that was not yet synced is lost (sync_interval: two minutes by default)"
        do = "give it three replicas, or set sync_interval = always in the server's jetstream section"
        found.append(Risk(f"the stream {config.name} has one replica", why, do))
    return found
