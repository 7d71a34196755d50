"""The kind ``redis``: an entry in a stream for each message."""

from __future__ import annotations

from collections.abc import Sequence

from relay.destinations.kind import Kind, late, of_class
from relay.destinations.redis.settings import RedisSettings


def _warnings(settings: RedisSettings, origin: str) -> Sequence[str]:
    if settings.maxlen is None:
        return ()
    return (f"loses messages: with maxlen = {settings.maxlen}, Redis drops the oldest entries, read or not",)


KIND = Kind(
    name="redis",
    settings=RedisSettings,
    build=of_class(f"{__package__}.destination:RedisDestination"),
    probe=late(f"{__package__}.probe:probe"),
    warnings=_warnings,
    risks=late(f"{__package__}.probe:risks"),
    extra="redis",
)
