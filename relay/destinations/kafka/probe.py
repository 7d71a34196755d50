"""Test a Kafka cluster without sending a message."""

from __future__ import annotations

import asyncio

from aiokafka.errors import KafkaError

from relay.destinations.kafka.producer import Producer
from relay.destinations.kafka.settings import KafkaSettings
from relay.destinations.kind import Probed
from relay.destinations.sending import naming

TOPIC_TIMEOUT_S = 3.0
CHECKED = "name, connection, TLS, user and password"


async def probe(name: str, settings: KafkaSettings) -> Probed:
    """Connect, and look for the topics that the settings name."""
    producer = await Producer.open(settings, f"neverlost-probe-{name}")
    try:
        topics = naming.known_names(settings.topic, settings.events)
        missing = [topic for topic in topics if not await _is_there(producer, topic)]
    finally:
        await producer.close()
    how = "" if producer.is_idempotent else " without idempotence: a lost answer may leave two records"
    if missing:
        return Probed(False, f"the broker lets us in{how}, and has no topic {', '.join(missing)} for us", CHECKED)
    return Probed(True, f"the broker lets us in{how}", f"{CHECKED}; the first message will show whether we may write")


async def _is_there(producer: Producer, topic: str) -> bool:
    try:
        async with asyncio.timeout(TOPIC_TIMEOUT_S):
            return bool(await producer.partitions(topic))
    except (KafkaError, TimeoutError):
        return False
