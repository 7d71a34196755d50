"""The settings of a destination on Kafka."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from relay.destinations.policy import LookUp, required
from relay.destinations.sending import naming
from relay.destinations.sending.network import NetworkPolicy

_SERVER = re.compile(r"[^\s,:/@]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class KafkaSettings(NetworkPolicy):
    """Publish each message to a topic, with its ordering key as the record's key.

    Args:
        bootstrap_servers: The first brokers: ``["kafka-1:9092", "kafka-2:9092"]``, or one text with commas.
        topic: The topic; ``{type}`` in it stands for the event type.
        security_protocol: The protocol of the connection.
        sasl_mechanism: The mechanism of the login, for the protocols ``SASL_…``.
        username: The user to log in as.
        password_env: The variable that holds the password.
        batch: The maximum number of messages in one turn.
        max_batch_bytes: The size of a record batch, in bytes; at most the topic's ``max.message.bytes``.
        concurrency: Turns at the same time.
        timeout_s: How long to wait for the brokers' confirmation, in seconds.
    """

    kind: Literal["kafka"] = "kafka"
    bootstrap_servers: Annotated[list[str], BeforeValidator(_listed)] = Field(min_length=1)
    topic: Annotated[str, naming.template(naming.TYPE)] = Field(default=naming.TYPE, min_length=1, max_length=249)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = Field(default=None, min_length=1)
    password_env: str | None = Field(default=None, min_length=1)
    password: SecretStr | None = None
    batch: int = Field(default=500, ge=1, le=10_000)
    max_batch_bytes: int = Field(default=900_000, ge=1_000, le=100_000_000)
    concurrency: int = Field(default=4, ge=1, le=1000)

    @field_validator("bootstrap_servers")
    @classmethod
    def _are_servers(cls, value: list[str]) -> list[str]:
        for each in value:
            if not _SERVER.fullmatch(each):
                raise ValueError("write host:port, as in kafka-1:9092")
        return value

    @field_validator("topic")
    @classmethod
    def _can_be_a_topic(cls, value: str) -> str:
        if not TOPIC.fullmatch(value.replace(naming.TYPE, "x")):
            raise ValueError("a topic consists of letters, digits, '.', '_' and '-'")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.logs_in == (self.username is None):
            raise ValueError(
                'username requires security_protocol = "SASL_SSL" or "SASL_PLAINTEXT", and they require username'
            )
        if self.logs_in and self.password_env is None and self.password is None:
            raise ValueError("password_env is needed: the variable that holds the password")
        return self

    @property
    def logs_in(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    @property
    def shown(self) -> str:
        return ",".join(self.bootstrap_servers)

    def resolved(self, look_up: LookUp) -> Self:
        if self.password_env is None:
            return self
        password = required(self.password_env, look_up, "password_env")
        return self.model_copy(update={"password": SecretStr(password)})

    def secrets(self) -> set[str]:
        return {self.password.get_secret_value()} if self.password else set()

    @property
    def needs_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")
