"""The settings of a destination on RabbitMQ: a confirmed publish for each message."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from relay.destinations.sending import naming
from relay.destinations.sending.urls import UrlPolicy
from relay.platform.units.durations import DAY_S, SecondsOrNone

# The names of exchanges and queues that AMQP's client library accepts.
NAME = re.compile(r"[a-zA-Z0-9-_.:@#,/+ ]+")
LONGEST_EXCHANGE = 127


def exchange_name(name: str) -> str:
    """Return the name, if an exchange can have it."""
    if len(name) > LONGEST_EXCHANGE or not NAME.fullmatch(name):
        raise ValueError(
            f"an exchange is named with letters, digits, blanks and - _ . : @ # , / +, at most {LONGEST_EXCHANGE}"
        )
    return name


class RabbitSettings(UrlPolicy):
    """Publish each message to a topic exchange, with its type as routing key.

    Args:
        url: The broker: ``amqp://user:password@host/vhost``, or ``amqps://…``; ``?heartbeat=30`` sets the seconds
            between two heartbeats (10).
        url_env: The variable that holds the URL, instead of ``url``.
        exchange: The topic exchange.
        routing_key: The routing key; ``{type}`` and ``{key}`` in it stand for the event type and the ordering key.
        ttl_s: How long the broker keeps a message that no consumer has taken, in seconds; by default forever.
        declare: Whether to create what is missing, including a queue for each event type.
        queue_type: The type of queues that we create; the guide's consumer can only use ``"classic"``.
        concurrency: Publishes that wait for their confirm at the same time.
    """

    SCHEMES = ("amqp", "amqps")
    EXAMPLE = "amqp://user:password@host/vhost, or amqps://…"

    kind: Literal["rabbitmq"] = "rabbitmq"
    exchange: Annotated[str, AfterValidator(exchange_name)] = "extraction.events"
    routing_key: Annotated[str, naming.template(naming.TYPE, naming.KEY)] = Field(default=naming.TYPE, max_length=255)
    ttl_s: SecondsOrNone = Field(default=None, gt=0, le=10 * 365 * DAY_S)
    declare: bool = True
    queue_type: Literal["classic", "quorum"] = "classic"
    concurrency: int = Field(default=256, ge=1, le=10_000)

    @model_validator(mode="after")
    def _declares_what_it_uses(self) -> RabbitSettings:
        if self.declare and self.routing_key != naming.TYPE:
            raise ValueError("your own routing_key requires declare = false, with queues and bindings of your own")
        return self

    @property
    def needs_tls(self) -> bool:
        return self.address.startswith("amqps:")
