"""What the relay writes, read back by the library's decoder."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from outbox import Message
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.destinations.rabbitmq.wire import TooLong, Wire

TO = RabbitSettings(url="amqp://broker/")

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
ascii_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60)
messages = st.builds(
    Message,
    id=st.uuids().map(str),
    type=st.from_regex(r"[A-Za-z0-9]{1,20}(\.[a-z]{1,20}){0,3}", fullmatch=True),
    source=ascii_text,
    subject=st.none() | text,
    ordering_key=st.none() | text,
    body=st.binary(max_size=20_000),
    headers=st.dictionaries(st.from_regex(r"x-[a-z]{1,20}", fullmatch=True), ascii_text, max_size=5),
    created_at=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)


def a_message(**changes: Any) -> Message:
    attributes: dict[str, Any] = {
        "id": "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f",
        "type": "extraction.completed",
        "source": "outbox",
        "subject": None,
        "ordering_key": None,
        "body": b"{}",
        "headers": {},
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Message(**{**attributes, **changes})


def read_back(octets: bytes) -> list[Any]:
    frames = []
    while octets:
        length, channel, found = frame.unmarshal(octets)
        assert channel == 7
        frames.append(found)
        octets = octets[length:]
    return frames


@given(messages, st.sampled_from([0, 4096, 131_072]))
def test_every_message_reads_back_as_what_it_is(message: Message, frame_max: int) -> None:
    publish, header, *bodies = read_back(Wire(TO, 7, frame_max).encode(message))
    assert isinstance(publish, commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("extraction.events", message.type, True)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(message.body)
    properties = header.properties
    assert (properties.message_id, properties.message_type) == (message.id, message.type)
    assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
    assert properties.timestamp == message.created_at.replace(microsecond=0)
    expected = {
        **message.headers,
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": message.id,
        "cloudEvents_source": message.source,
        "cloudEvents_type": message.type,
        "cloudEvents_time": message.created_at.isoformat().replace("+00:00", "Z"),
    }
    if message.subject is not None:
        expected["cloudEvents_subject"] = message.subject
    if message.ordering_key is not None:
        expected["cloudEvents_partitionkey"] = message.ordering_key
    assert properties.headers == expected
    assert all(isinstance(body, ContentBody) for body in bodies)
    assert b"".join(body.value for body in bodies) == message.body
    assert all(len(body.value) + 8 <= (frame_max or 2**31) for body in bodies)


def test_headers_that_no_frame_holds_are_said_to_be_too_long() -> None:
    with pytest.raises(TooLong, match="headers take"):
        Wire(TO, 7, 4096).encode(a_message(headers={"x-a": "v" * 5000}))
    with pytest.raises(TooLong, match="hold a name of 300 bytes"):
        Wire(TO, 7, 4096).encode(a_message(headers={"x" * 300: "v"}))


def test_one_message_is_the_same_octets_on_every_attempt() -> None:
    wire = Wire(TO, 7, 4096)
    assert wire.encode(a_message()) == wire.encode(a_message())


def test_what_was_written_by_sql_and_is_no_text_goes_as_text() -> None:
    strange: dict[str, Any] = {"x-number": 7, "x-null": None, "x-list": ["a"], "": "nameless", "x\r\ny": "a\r\nb"}
    _, header, *_ = read_back(Wire(TO, 7, 4096).encode(a_message(headers=strange)))
    assert strange.keys() < header.properties.headers.keys()
    assert (header.properties.headers["x-number"], header.properties.headers["x-null"]) == ("7", "None")


def test_no_header_copies_a_message_to_other_queues() -> None:
    octets = Wire(TO, 7, 0).encode(a_message(headers={"CC": "q", "BCC": "q", "x-cc": "q"}))
    header = read_back(octets)[1]
    assert {"CC", "BCC", "x-cc"} & header.properties.headers.keys() == {"x-cc"}


def test_what_happened_before_1970_can_be_sent() -> None:
    octets = Wire(TO, 7, 0).encode(a_message(created_at=datetime(1960, 1, 1, tzinfo=UTC)))
    properties = read_back(octets)[1].properties
    assert properties.timestamp == datetime(1970, 1, 1, tzinfo=UTC)
    assert properties.headers["cloudEvents_time"] == "1960-01-01T00:00:00Z"
