"""The kind ``rabbitmq``: a confirmed publish for each message."""

from __future__ import annotations

from relay.destinations.contract import Destination
from relay.destinations.kind import Implied, Kind, Probed
from relay.destinations.policy import LookUp
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.platform.database import Database
from relay.platform.guide import COMPLETED

AMQP_URL = "AMQP_URL"


def _build(name: str, settings: RabbitSettings, database: Database) -> Destination:
    from relay.destinations.rabbitmq.destination import RabbitDestination

    return RabbitDestination(name, settings)


def _check(name: str, settings: RabbitSettings) -> None:
    from relay.destinations.rabbitmq.amqp import Broker

    Broker.of(settings, name).check()


async def _probe(name: str, settings: RabbitSettings) -> Probed:
    from relay.destinations.rabbitmq.probe import probe

    return await probe(name, settings)


def _implied(look_up: LookUp) -> RabbitSettings:
    return RabbitSettings(url_env=AMQP_URL, events=[COMPLETED])


KIND = Kind(
    name="rabbitmq",
    settings=RabbitSettings,
    build=_build,
    probe=_probe,
    check=_check,
    implied=Implied("rabbitmq", AMQP_URL, _implied, {"url": AMQP_URL}),
)
