"""What a destination on Redis is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from relay.destinations.sending import naming
from relay.destinations.urls import UrlPolicy


class RedisSettings(UrlPolicy):
    """Append each message to a stream.

    Args:
        url: The server: ``redis://user:password@host:6379/0``, ``rediss://…`` or ``unix:///path``.
        url_env: Or the variable that holds it.
        stream: The stream's key, as it is or with ``{type}`` for the event type.
        maxlen: Have Redis drop the oldest entries beyond so many, read or not. By default it drops none.
        deduplicate: Have Redis drop a message that it has already (``XADD … IDMP``, from Redis 8.6 on); with
            ``"auto"`` where the server can.
        batch: How many messages go to the server in one pipeline at most.
        ca_file: The certificates to trust for ``rediss://``, instead of the system's.
        concurrency: How many pipelines are under way at once, each on a connection of its own.
    """

    WHAT = "server"
    SCHEMES = ("redis", "rediss", "unix")
    EXAMPLE = "redis://user:password@host:6379/0, rediss://… or unix:///path"

    kind: Literal["redis"] = "redis"
    stream: Annotated[str, naming.template(naming.TYPE)] = Field(default=naming.TYPE, min_length=1, max_length=1000)
    maxlen: int | None = Field(default=None, ge=1)
    deduplicate: bool | Literal["auto"] = "auto"
    batch: int = Field(default=200, ge=1, le=10_000)
    ca_file: Path | None = None
    concurrency: int = Field(default=8, ge=1, le=1000)
