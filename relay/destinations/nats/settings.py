"""The settings of a destination on NATS JetStream."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from relay.destinations.policy import url_secrets
from relay.destinations.sending import naming, tls
from relay.destinations.sending.urls import UrlPolicy


class NatsSettings(UrlPolicy):
    """Publish each message to a subject that a stream of JetStream takes.

    Args:
        url: The server: ``nats://user:password@host:4222``, ``nats://token@host`` or ``tls://…``; several, separated by
            commas, are tried in turn.
        url_env: The variable that holds the URL, instead of ``url``.
        subject: The subject; ``{type}`` and ``{key}`` in it stand for the event type and the ordering key.
        stream: The stream that must take it; by default, any stream may.
        declare: Whether to create a missing stream; by default nothing is created.
        credentials_file: A ``.creds`` file, with a JWT and its key.
        batch: The maximum number of messages that wait for their acknowledgements together.
        ca_file: The certificates to trust, instead of the system's.
        client_cert_file: The client certificate to present.
        client_key_file: Its key, if that is in another file.
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
    declare: bool = False
    credentials_file: Path | None = None
    batch: int = Field(default=200, ge=1, le=10_000)
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    concurrency: int = Field(default=8, ge=1, le=1000)

    @model_validator(mode="after")
    def _can_declare(self) -> Self:
        if self.declare:
            if self.stream is None:
                raise ValueError("declare = true needs the name of the stream: set stream")
            self.subjects()
        return self

    def servers(self) -> list[str]:
        """Return the servers' URLs. They include passwords: never log them."""
        return [each.strip() for each in self.address.split(",")]

    @property
    def shown(self) -> str:
        return ",".join(each.rpartition("@")[2].removeprefix("nats://") for each in self.servers())

    def secrets(self) -> set[str]:
        return {secret for each in self.servers() for secret in url_secrets(each)} if self.url else set()

    def subjects(self) -> list[str]:
        """Return the subjects of the stream that we declare.

        Raises:
            ValueError: The settings do not determine them.
        """
        if naming.is_literal(self.subject):
            return [self.subject]
        if prefix := self.subject.partition("{")[0]:
            return [f"{prefix.rstrip('.')}.>"]
        beyond = ".>" if naming.KEY in self.subject else ""
        if any(character in event for event in self.events for character in "*?[]!"):
            raise ValueError(
                "declare = true cannot derive the stream's subjects from patterns: give the subject a fixed beginning, "
                f'as in subject = "events.{self.subject}"'
            )
        return [f"{event}{beyond}" for event in self.events]

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS settings: trusted certificates and client certificate; ``None``: the library's default.

        Raises:
            ValueError: A file cannot be read, or has the wrong content.
        """
        if self.ca_file is None and self.client_cert_file is None:
            return None
        return tls.context(self.ca_file, self.client_cert_file, self.client_key_file)

    @classmethod
    def checked(cls, url: SecretStr) -> SecretStr:
        for each in url.get_secret_value().split(","):
            super().checked(SecretStr(each.strip()))
        return url
