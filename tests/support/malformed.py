"""Messages that RabbitMQ accepts and that break other clients, written out octet by octet."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import pika

from support.rabbitmq import QUEUE, RabbitServer

FLAGS = {
    "content_type": 15,
    "content_encoding": 14,
    "headers": 13,
    "delivery_mode": 12,
    "priority": 11,
    "correlation_id": 10,
    "reply_to": 9,
    "expiration": 8,
    "message_id": 7,
    "timestamp": 6,
    "type": 5,
    "user_id": 4,
    "app_id": 3,
    "cluster_id": 2,
}
LATIN = b"caf\xe9"


def short(octets: bytes) -> bytes:
    return bytes((len(octets),)) + octets


def long(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def table(entries: Mapping[bytes, bytes]) -> bytes:
    return long(b"".join(short(name) + value for name, value in entries.items()))


def nested(opening: bytes, depth: int) -> bytes:
    """Return a value of nested arrays (``A``) or tables (``F``)."""
    value = b"V"
    for _ in range(depth):
        value = b"A" + long(value) if opening == b"A" else b"F" + table({b"k": value})
    return value


@dataclass(frozen=True)
class Malformed:
    """A message that no consumer of ours can decode.

    Args:
        fields: Its properties but the headers, in octets.
        entries: Its headers, in octets.
        body: Its body.
        routing_key: What it is published with.
    """

    fields: Mapping[str, bytes] = field(default_factory=dict)
    entries: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes = b"{}"
    routing_key: bytes = QUEUE.encode()

    @property
    def properties(self) -> bytes:
        fields = {**self.fields, **({"headers": table(self.entries)} if self.entries else {})}
        names = sorted(fields, key=lambda name: -FLAGS[name])
        return struct.pack(">H", sum(1 << FLAGS[name] for name in names)) + b"".join(map(fields.__getitem__, names))


def properties(**fields: bytes) -> Malformed:
    return Malformed(fields)


def header(name: bytes, value: bytes, body: bytes = b"{}") -> Malformed:
    return Malformed(entries={name: value}, body=body)


# A body that is not JSON makes a dead letter of a message with valid properties: can these be sent again?
UNREADABLE = b"not json"

ATTACKS: dict[str, Malformed] = {
    "a timestamp in microseconds": properties(timestamp=struct.pack(">Q", 1_767_225_600_000_000)),
    "a timestamp in nanoseconds": properties(timestamp=struct.pack(">Q", 1_767_225_600_000_000_000)),
    "the highest timestamp": properties(timestamp=b"\xff" * 8),
    "a time in a header, in microseconds": header(b"at", b"T" + struct.pack(">Q", 10**15)),
    "a time in a table in a header": header(b"a", b"F" + table({b"at": b"T" + b"\xff" * 8})),
    "a Latin-1 app_id": properties(app_id=short(LATIN)),
    "a Latin-1 content_type": properties(content_type=short(LATIN)),
    "a Latin-1 content_encoding": properties(content_encoding=short(LATIN)),
    "a Latin-1 correlation_id": properties(correlation_id=short(LATIN)),
    "a Latin-1 reply_to": properties(reply_to=short(LATIN)),
    "a Latin-1 message_id": properties(message_id=short(LATIN)),
    "a Latin-1 type": properties(type=short(LATIN)),
    "a Latin-1 cluster_id": properties(cluster_id=short(LATIN)),
    "a Latin-1 header name": header(LATIN, b"V"),
    "a Latin-1 name in a table": header(b"a", b"F" + table({LATIN: b"V"})),
    "a Latin-1 attribute": header(b"cloudEvents_type", b"S" + long(LATIN)),
    "a Latin-1 routing key": Malformed(routing_key=LATIN),
    "the longest Latin-1 routing key": Malformed(routing_key=b"\xe9" * 255),
    "2,000 nested arrays": header(b"deep", nested(b"A", 2000)),
    "2,000 nested tables": header(b"deep", nested(b"F", 2000)),
    "headers that leave no room for ours": header(b"x", b"S" + long(b"x" * 131_000), UNREADABLE),
    "120,000 values in an array": header(b"many", b"A" + long(b"V" * 120_000), UNREADABLE),
    "a number that no float holds": header(b"big", b"d" + struct.pack(">d", 1e300), UNREADABLE),
    "a Latin-1 header": header(b"x-name", b"S" + long(LATIN), UNREADABLE),
    "a decimal": header(b"price", b"D" + struct.pack(">Bi", 255, -1), UNREADABLE),
    "a copy for the queue it is in": header(b"CC", b"A" + long(b"S" + long(QUEUE.encode())), UNREADABLE),
}


class _Octets(pika.BasicProperties):
    def __init__(self, octets: bytes) -> None:
        super().__init__()
        self._octets = octets

    def encode(self) -> list[bytes]:
        return [self._octets]


def publish(rabbitmq: RabbitServer, message: Malformed, exchange: str) -> None:
    """Publish a message, and return when the broker has taken it."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(exchange, message.routing_key, message.body, _Octets(message.properties))  # type: ignore[arg-type]
    connection.close()
