"""The kind ``nats``: a publish for each message, acknowledged by JetStream."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.errors import SettingsError
from relay.destinations.contract import Destination
from relay.destinations.kind import Kind, Probed, Risk
from relay.destinations.nats.settings import NatsSettings
from relay.platform.database import Database


def _build(name: str, settings: NatsSettings, database: Database) -> Destination:
    from relay.destinations.nats.destination import NatsDestination

    _check(name, settings)
    return NatsDestination(name, settings)


def _check(name: str, settings: NatsSettings) -> None:
    import nats.aio.client  # noqa: F401

    try:
        settings.tls_context()
    except ValueError as error:
        raise SettingsError(f"destination {name}: {error}") from None


async def _probe(name: str, settings: NatsSettings) -> Probed:
    from relay.destinations.nats.probe import probe

    return await probe(name, settings)


async def _risks(name: str, settings: NatsSettings) -> Sequence[Risk]:
    from relay.destinations.nats.probe import risks

    return await risks(name, settings)


KIND = Kind(
    name="nats",
    settings=NatsSettings,
    build=_build,
    probe=_probe,
    check=_check,
    risks=_risks,
    extra="nats",
)
