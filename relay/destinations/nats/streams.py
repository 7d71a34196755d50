"""The streams of our subjects: created if the settings say so, else only looked up."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from relay.destinations.nats.settings import NatsSettings


async def ensure(client: Client, settings: NatsSettings) -> None:
    """Create the stream if it does not exist; an existing one is not changed."""
    js = client.jetstream()
    try:
        await js.stream_info(settings.stream)
    except NotFoundError:
        await js.add_stream(StreamConfig(name=settings.stream, subjects=settings.subjects()))


async def known(client: Client, settings: NatsSettings) -> dict[str, Any]:
    """Return the streams that take our subjects: subject → its stream, or ``None``."""
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
    """Return the subjects that a message may have, if the settings determine them."""
    try:
        return settings.subjects()
    except ValueError:
        return []
