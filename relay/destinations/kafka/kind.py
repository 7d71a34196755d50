"""The kind ``kafka``: record batches, confirmed by all in-sync replicas."""

from __future__ import annotations

from relay.destinations.kafka.settings import KafkaSettings
from relay.destinations.kind import Kind, late, of_class

KIND = Kind(
    name="kafka",
    settings=KafkaSettings,
    build=of_class(f"{__package__}.destination:KafkaDestination"),
    probe=late(f"{__package__}.probe:probe"),
    extra="kafka",
)
