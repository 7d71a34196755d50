"""A message's record on Kafka, and the partition of its key."""

import pytest

pytest.importorskip("aiokafka")

from outbox import Message
from relay.destinations.kafka import wire


# The first five are in Kafka's own UtilsTest: https://github.com/apache/kafka (clients, UtilsTest.testMurmur2)
@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    ],
)
def test_a_keys_partition_is_that_of_javas_partitioner(key: bytes, murmur2: int) -> None:
    assert [wire.partition(key, count) for count in (1, 7, 100)] == [
        (murmur2 & 0x7FFFFFFF) % count for count in (1, 7, 100)
    ]


def test_a_record_is_an_event_in_binary_mode() -> None:
    headers = '{"x-tenant": "sieben ✓", "ce_id": "not-the-producers", "traceparent": "00-1-2-01"}'
    message = Message("id-1", "a.b", "outbox", "contents/ü", "k", "{}", headers, "2026-01-01 10:00:00.5+00")
    assert dict(wire.headers(message)) == {
        "ce_specversion": b"1.0",
        "content-type": b"application/json",
        "ce_id": b"id-1",
        "ce_type": b"a.b",
        "ce_source": b"outbox",
        "ce_time": b"2026-01-01T10:00:00.500000Z",
        "ce_subject": "contents/ü".encode(),
        "ce_partitionkey": b"k",
        "x-tenant": "sieben ✓".encode(),
        "traceparent": b"00-1-2-01",
    }
    assert wire.key(message) == b"k"
