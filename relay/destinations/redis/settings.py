"""The settings of a destination on Redis."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from relay.destinations.sending import naming
from relay.destinations.sending.urls import UrlPolicy


class RedisSettings(UrlPolicy):
    """Append each message to a stream.

    Args:
        url: The server: ``redis://user:password@host:6379/0``, ``rediss://…`` or ``unix:///path``.
        url_env: The variable that holds the URL, instead of ``url``.
        stream: The stream's key; ``{type}`` in it stands for the event type.
        maxlen: The maximum number of entries that Redis keeps; it drops the oldest, read or not. Default: no limit.
        batch: The maximum number of messages in one pipeline.
        concurrency: Pipelines at the same time, each on its own connection.
    """

    WHAT = "server"
    SCHEMES = ("redis", "rediss", "unix")
    EXAMPLE = "redis://user:password@host:6379/0, rediss://… or unix:///path"

    kind: Literal["redis"] = "redis"
    stream: Annotated[str, naming.template(naming.TYPE)] = Field(default=naming.TYPE, min_length=1, max_length=1000)
    maxlen: int | None = Field(default=None, ge=1)
    batch: int = Field(default=200, ge=1, le=10_000)
    concurrency: int = Field(default=8, ge=1, le=1000)

    @property
    def needs_tls(self) -> bool:
        return self.address.startswith("rediss:")
