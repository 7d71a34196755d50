"""The settings of a destination on NATS JetStream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from relay.destinations.policy import url_secrets
from relay.destinations.sending import naming
from relay.destinations.sending.urls import UrlPolicy


class NatsSettings(UrlPolicy):
    """Publish each message to a subject that a stream of JetStream takes.

    Args:
        url: The server: ``nats://user:password@host:4222``, ``nats://token@host`` or ``tls://…``; several, separated by
            commas, are tried in turn.
        url_env: The variable that holds the URL, instead of ``url``.
        subject: The subject; ``{type}`` and ``{key}`` in it stand for the event type and the ordering key.
        stream: The stream that must take it; by default, any stream may.
        credentials_file: A ``.creds`` file, with a JWT and its key.
        batch: The maximum number of messages that wait for their acknowledgements at the same time.
        concurrency: Batches at the same time.
    """

    WHAT = "server"
    SCHEMES = ("nats", "tls")
    EXAMPLE = "nats://user:password@host:4222, or tls://…"

    kind: Literal["nats"] = "nats"
    subject: Annotated[str, naming.template(naming.TYPE, naming.KEY)] = Field(
        default=naming.TYPE, max_length=500, pattern=r"^[^\s*>.]+(\.[^\s*>.]+)*$"
    )
    stream: str | None = Field(default=None, pattern=r"^[^\s*>./\\]+$", max_length=200)
    credentials_file: Path | None = None
    batch: int = Field(default=200, ge=1, le=10_000)
    concurrency: int = Field(default=8, ge=1, le=1000)

    def servers(self) -> list[str]:
        """Return the servers' URLs. They include passwords: never log them."""
        return [each.strip() for each in self.address.split(",")]

    @property
    def shown(self) -> str:
        return ",".join(each.rpartition("@")[2].removeprefix("nats://") for each in self.servers())

    def secrets(self) -> set[str]:
        return {secret for each in self.servers() for secret in url_secrets(each)} if self.url else set()

    @property
    def needs_tls(self) -> bool:
        """Return whether a file is given; without a file, the library uses its own TLS context."""
        return self.ca_file is not None or self.client_cert_file is not None

    @classmethod
    def checked(cls, url: SecretStr) -> SecretStr:
        for each in url.get_secret_value().split(","):
            super().checked(SecretStr(each.strip()))
        return url
