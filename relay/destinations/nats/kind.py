"""The kind ``nats``: a publish for each message, acknowledged by JetStream."""

from __future__ import annotations

from relay.destinations.kind import Kind, late, of_class
from relay.destinations.nats.settings import NatsSettings

KIND = Kind(
    name="nats",
    settings=NatsSettings,
    build=of_class("relay.destinations.nats.destination:NatsDestination"),
    probe=late("relay.destinations.nats.probe:probe"),
    risks=late("relay.destinations.nats.probe:risks"),
    extra="nats",
)
