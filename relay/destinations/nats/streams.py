"""The streams behind our subjects: made where that is ours to do, else only looked at."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from relay.destinations.nats.settings import NatsSettings


async def ensure(client: Client, settings: NatsSettings) -> None:
    """Create the stream unless it is there; one that is there is used as it is."""
    js = client.jetstream()
    try:
        await js.stream_info(settings.stream)
    except NotFoundError:
        await js.add_stream(StreamConfig(name=settings.stream, subjects=settings.subjects()))


async def known(client: Client, settings: NatsSettings) -> dict[str, Any]:
    """Return the streams that are known to take our subjects: subject → its stream, or ``None`` where there is none."""
    js = client.jetstream()
    if settings.stream is not None:
        try:
            return {settings.stream: await js.stream_info(settings.stream)}
        except NotFoundError:
            return {settings.stream: None}
    found: dict[str, Any] = {}
    for subject in subjects(settings):
        try:
            found[subject] = await js.stream_info(await js.find_stream_name_by_subject(subject))
        except NotFoundError:
            found[subject] = None
    return found


def subjects(settings: NatsSettings) -> list[str]:
    """Return subjects that a message may have, where the settings tell them."""
    try:
        return settings.subjects()
    except ValueError:
        return []
