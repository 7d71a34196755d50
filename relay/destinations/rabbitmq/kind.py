"""The kind ``rabbitmq``: a confirmed publish for each message."""

from __future__ import annotations

from relay.destinations.kind import Implied, Kind, late, of_class
from relay.destinations.policy import LookUp
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.platform.guide import COMPLETED

AMQP_URL = "AMQP_URL"


def _implied(look_up: LookUp) -> RabbitSettings:
    return RabbitSettings(url_env=AMQP_URL, events=[COMPLETED])


KIND = Kind(
    name="rabbitmq",
    settings=RabbitSettings,
    build=of_class(f"{__package__}.destination:RabbitDestination"),
    probe=late(f"{__package__}.probe:probe"),
    implied=Implied("rabbitmq", AMQP_URL, _implied, {"url": AMQP_URL}),
)
