"""Encode a message as a record: the data is the value, the ordering key is the key, headers hold the rest.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md (binary mode)
"""

from __future__ import annotations

from functools import lru_cache

from aiokafka.partitioner import murmur2

from outbox import Message
from relay.destinations.sending import instants

Header = tuple[str, bytes]

_CONTENT_TYPE: Header = ("content-type", b"application/json")
_SPECVERSION: Header = ("ce_specversion", b"1.0")


def headers(message: Message) -> list[Header]:
    """Return a message's headers: the CloudEvents attributes, and the producer's own."""
    found: list[Header] = [
        *_known(message.type, message.source),
        ("ce_id", message.id.encode()),
        ("ce_time", instants.rfc3339(message).encode()),
    ]
    if message.subject is not None:
        found.append(("ce_subject", message.subject.encode()))
    if message.ordering_key is not None:
        found.append(("ce_partitionkey", message.ordering_key.encode()))
    if message.headers:
        own = {name for name, _ in found}
        found += [(name, str(value).encode()) for name, value in message.headers.items() if name.lower() not in own]
    return found


def key(message: Message) -> bytes | None:
    """Return the record's key."""
    return None if message.ordering_key is None else message.ordering_key.encode()


@lru_cache(maxsize=65_536)
def partition(key: bytes, count: int) -> int:
    """Return a key's partition as Java's partitioner does, so keys of other producers get the same partition.

    Args:
        key: The record's key.
        count: The number of the topic's partitions.
    """
    return int(murmur2(key) & 0x7FFFFFFF) % count


@lru_cache(maxsize=1024)
def _known(type_: str, source: str) -> tuple[Header, ...]:
    return (_SPECVERSION, _CONTENT_TYPE, ("ce_type", type_.encode()), ("ce_source", source.encode()))
