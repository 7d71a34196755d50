"""How a queue's octets become a message: whose it is, and by which id it is known."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.header import ContentHeader

from listeners.rabbitmq.properties import decode
from listeners.rabbitmq.reading import Incoming, Unreadable, read
from outbox import Message
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.destinations.rabbitmq.wire import Wire

TO = RabbitSettings(url="amqp://broker/")


async def not_acknowledged() -> None: ...


def incoming(body: bytes = b"{}", *, routing_key: str = "extraction.completed", **properties: Any) -> Incoming:
    """Return a message as pamqp's encoder produces it."""
    octets = commands.Basic.Properties(**properties).marshal()
    return Incoming(body, decode(octets), "extraction.events", routing_key, not_acknowledged)


def as_it_arrives(message: Message) -> Incoming:
    octets = Wire(TO, 1, 0).encode(message)
    octets = octets[frame.unmarshal(octets)[0] :]
    _, _, header = frame.unmarshal(octets)
    assert isinstance(header, ContentHeader)
    properties = decode(header.properties.marshal())
    return Incoming(message.body, properties, "extraction.events", message.type, not_acknowledged)


def test_what_our_relay_sends_is_read_as_the_message_it_was() -> None:
    created_at = datetime(2026, 1, 1, 10, 0, 0, 123456, tzinfo=UTC)
    sent = Message("e-1", "extraction.completed", "/w", "c/1", "k", '{"contentId": "ü"}', {"x-tenant": "7"}, created_at)
    got = read(as_it_arrives(sent))
    assert (got.id, got.type, got.source, got.subject, got.ordering_key) == ("e-1", sent.type, "/w", "c/1", "k")
    assert (got.body, got.headers, got.created_at) == (sent.body, sent.headers, created_at)


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:"])
def test_cloud_events_of_either_prefix_are_understood(prefix: str) -> None:
    attributes = {"id": "e-1", "type": "t.u", "source": "/s", "time": datetime(2026, 1, 1)}
    got = read(incoming(headers={prefix + name: value for name, value in attributes.items()}))
    assert (got.id, got.type, got.source, got.created_at) == ("e-1", "t.u", "/s", datetime(2026, 1, 1, tzinfo=UTC))
    assert got.headers == {}


def test_a_structured_cloud_event_is_unpacked() -> None:
    event = {"specversion": "1.0", "id": "e-1", "type": "t.u", "source": "/s", "data": {"contentId": "c-1"}}
    got = read(incoming(json.dumps(event).encode(), content_type="application/cloudevents+json; charset=utf-8"))
    assert (got.id, got.type, got.data) == ("e-1", "t.u", {"contentId": "c-1"})
    with pytest.raises(Unreadable, match="data"):
        read(incoming(b"[]", content_type="application/cloudevents+json"))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("time", "9999-12-31T23:59:59-01:00"), ("time", "0001-01-01T00:00:00+01:00"), ("time", "yesterday")],
)
def test_a_time_that_no_clock_shows_is_replaced_by_the_time_of_arrival(attribute: str, value: str) -> None:
    got = read(incoming(headers={f"cloudEvents_{attribute}": value}))
    assert abs((datetime.now(UTC) - got.created_at).total_seconds()) < 60


@pytest.mark.parametrize(
    ("body", "properties", "reason"),
    [
        (b'{"data": "\\ud800"}', {"content_type": "application/cloudevents+json"}, "surrogate"),
        (b"{}", {"headers": {"cloudEvents_id": "\u0436" * 128}}, "255 bytes"),
    ],
)
def test_what_no_dead_letter_could_carry_is_unreadable(body: bytes, properties: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(incoming(body, **properties))


def test_a_content_with_a_long_name_is_known_by_its_digest() -> None:
    assert read(incoming(json.dumps({"contentId": "\u0436" * 130}).encode())).id.startswith("sha256:")


def test_the_guides_bare_message_is_known_by_its_content_as_over_http() -> None:
    got = read(incoming(b'{"contentId": "c-1"}'))
    assert (got.id, got.type) == ("content:c-1", "extraction.completed")


@settings(max_examples=30)
@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.none(), min_size=1))
def test_without_an_id_the_same_content_is_the_same_message_however_it_is_spelled(data: dict[str, Any]) -> None:
    one = json.dumps(data).encode()
    other = json.dumps(dict(reversed(data.items())), indent=2).encode()
    assert read(incoming(one)).id == read(incoming(other)).id
    assert read(incoming(one)).id != read(incoming(json.dumps({**data, "more": 1.5}).encode())).id


@given(st.binary(max_size=200))
def test_every_body_is_either_read_or_unreadable(body: bytes) -> None:
    with suppress(Unreadable):
        read(incoming(body))
