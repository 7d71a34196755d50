"""The kind ``kafka``: record batches, confirmed by all in-sync replicas."""

from __future__ import annotations

from outbox.errors import SettingsError
from relay.destinations.contract import Destination
from relay.destinations.kafka.settings import KafkaSettings
from relay.destinations.kind import Kind, Probed
from relay.platform.database import Database


def _build(name: str, settings: KafkaSettings, database: Database) -> Destination:
    from relay.destinations.kafka.destination import KafkaDestination

    _check(name, settings)
    return KafkaDestination(name, settings)


def _check(name: str, settings: KafkaSettings) -> None:
    import aiokafka  # noqa: F401

    try:
        settings.tls_context()
    except ValueError as error:
        raise SettingsError(f"destination {name}: {error}") from None


async def _probe(name: str, settings: KafkaSettings) -> Probed:
    from relay.destinations.kafka.probe import probe

    return await probe(name, settings)


KIND = Kind(name="kafka", settings=KafkaSettings, build=_build, probe=_probe, check=_check, extra="kafka")
