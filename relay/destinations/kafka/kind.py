"""The kind ``kafka``: record batches, confirmed by all in-sync replicas."""

from __future__ import annotations

from relay.destinations.kafka.settings import KafkaSettings
from relay.destinations.kind import Kind, late, of_class

KIND = Kind(
    name="kafka",
    settings=KafkaSettings,
    build=of_class("relay.destinations.kafka.destination:KafkaDestination"),
    probe=late("relay.destinations.kafka.probe:probe"),
    extra="kafka",
)
