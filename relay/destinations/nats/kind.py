"""The kind ``nats``: a publish for each message, acknowledged by JetStream."""

from __future__ import annotations

from relay.destinations.kind import Kind, late, of_class
from relay.destinations.nats.settings import NatsSettings

KIND = Kind(
    name="nats",
    settings=NatsSettings,
    build=of_class(f"{__package__}.destination:NatsDestination"),
    probe=late(f"{__package__}.probe:probe"),
    risks=late(f"{__package__}.probe:risks"),
    extra="nats",
)
