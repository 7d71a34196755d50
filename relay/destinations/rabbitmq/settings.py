"""A destination on RabbitMQ: a confirmed publish for each message."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from relay.destinations.policy import DestinationPolicy, LookUp, url_secrets


class RabbitSettings(DestinationPolicy):
    """Publish each message to a topic exchange, with its type as routing key.

    Args:
        url: The broker: ``amqp://user:password@host/vhost``, or ``amqps://…``; ``?heartbeat=30`` changes the seconds
            between two heartbeats (10), ``&certfile=…&keyfile=…`` shows a certificate of our own.
        url_env: Or the variable that holds it.
        exchange: The topic exchange.
        declare: Create what is missing, a queue for each event type included; ``False`` leaves it to you.
        queue_type: The type of queues that we create; the guide's consumer can only use ``"classic"``.
        ca_file: The certificates to trust for ``amqps://``, instead of the system's.
        concurrency: How many publishes wait for their confirm at once.
    """

    kind: Literal["rabbitmq"] = "rabbitmq"
    url: SecretStr | None = None
    url_env: str | None = Field(default=None, min_length=1)
    exchange: str = Field(default="extraction.events", min_length=1, max_length=255)
    declare: bool = True
    queue_type: Literal["classic", "quorum"] = "classic"
    ca_file: Path | None = None
    concurrency: int = Field(default=256, ge=1, le=10_000)

    @field_validator("url")
    @classmethod
    def _is_amqp(cls, value: SecretStr | None) -> SecretStr | None:
        return value and _amqp(value)

    @model_validator(mode="after")
    def _names_a_broker(self) -> RabbitSettings:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give the broker as url or as url_env, one of the two")
        return self

    @property
    def broker(self) -> str:
        """The broker's URL, password included: never log it."""
        assert self.url is not None
        return self.url.get_secret_value()

    def resolved(self, look_up: LookUp) -> RabbitSettings:
        if self.url_env is None:
            return self
        value = look_up(self.url_env)
        if value is None:
            raise ValueError(f"url_env names {self.url_env}, but neither {self.url_env} nor {self.url_env}_FILE is set")
        return self.model_copy(update={"url": _amqp(SecretStr(value))})

    def secrets(self) -> set[str]:
        return url_secrets(self.broker) if self.url else set()


def _amqp(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the broker's URL is malformed: write amqp://user:password@host/vhost") from None
    if parts.scheme not in ("amqp", "amqps") or not host:
        raise ValueError("the broker's URL must be amqp://user:password@host/vhost, or amqps://…")
    return url
