"""Test a NATS server without sending a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nats.js.errors import NotFoundError

from relay.destinations.kind import Probed, Risk
from relay.destinations.nats.connection import NatsConnection
from relay.destinations.nats.settings import NatsSettings
from relay.destinations.sending import naming

CHECKED = "name, connection, TLS, user and password"


async def probe(name: str, settings: NatsSettings) -> Probed:
    """Connect, and look for the streams that take our subjects."""
    found = await _streams(settings, name)
    if missing := [subject for subject, config in found.items() if config is None]:
        what = f"no stream {settings.stream}" if settings.stream else f"no stream for {', '.join(missing)}"
        return Probed(False, f"the server lets us in, and has {what}", CHECKED)
    streams = ", ".join(sorted({config.name for config in found.values()}))
    what = f", and takes our subjects into {streams}" if streams else ""
    return Probed(True, f"the server lets us in{what}", f"{CHECKED}; the first message will show whether it may store")


async def risks(name: str, settings: NatsSettings) -> Sequence[Risk]:
    """Return which messages the streams of our subjects may lose after acknowledging them."""
    found = await _streams(settings, name)
    streams = {config.name: config for config in found.values() if config is not None}
    return [risk for config in streams.values() for risk in _risks(config)]


async def _streams(settings: NatsSettings, name: str) -> dict[str, Any]:
    """Return the streams that take our subjects, as far as these are known: subject → configuration, or ``None``."""
    connection = await NatsConnection.open(settings, f"probe of {name}")
    js = connection.client.jetstream()
    found: dict[str, Any] = {}
    try:
        for subject in naming.known_names(settings.subject, settings.events):
            try:
                stream = settings.stream or await js.find_stream_name_by_subject(subject)
                found[subject] = (await js.stream_info(stream)).config
            except NotFoundError:
                found[subject] = None
    finally:
        await connection.close()
    return found


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
