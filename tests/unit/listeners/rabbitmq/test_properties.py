"""The octets of AMQP properties: for any octets, decoding reports what it found and never raises."""

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.header import ContentHeader
from support.malformed import ATTACKS, LATIN, UNREADABLE, Malformed, header, nested, properties, short

from listeners.rabbitmq.dead import DROPPED, MESSAGE_ID, REASON, letter
from listeners.rabbitmq.frames import mended
from listeners.rabbitmq.properties import DEEPEST, Properties, decode
from relay.destinations.rabbitmq.wire import CONTENT_TYPE

FRAME = 131_072
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20).map(bytearray),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


def decoded_by_pamqp(octets: bytes) -> commands.Basic.Properties:
    header = ContentHeader()
    header.unmarshal(struct.pack(">HHQ", 60, 0, 0) + octets)
    assert header.properties is not None
    return header.properties


@given(st.binary(max_size=300))
def test_all_octets_are_either_decoded_or_blamed(octets: bytes) -> None:
    found = decode(octets)
    assert isinstance(found, Properties)


@given(st.binary(max_size=100), st.integers(0, 15))
def test_what_is_cut_off_or_changed_is_decoded_or_blamed(noise: bytes, at: int) -> None:
    octets = bytearray(commands.Basic.Properties(app_id="a", headers={"x": [1, {"y": "z"}]}, message_id="m").marshal())
    octets[at : at + len(noise)] = noise
    for end in range(len(octets)):
        decode(bytes(octets[:end]))


@given(st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=5), st.text(max_size=50))
def test_what_the_library_encodes_is_decoded_as_the_library_decodes_it(headers: dict[str, Any], app_id: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    octets = commands.Basic.Properties(headers=headers, app_id=app_id, timestamp=at, delivery_mode=2).marshal()
    theirs, ours = decoded_by_pamqp(octets), decode(octets)
    assert ours.problem is None
    assert ours.headers == (theirs.headers or {})
    assert (ours.values.get("app_id", ""), ours.values["timestamp"], ours.values["delivery_mode"]) == (app_id, at, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"t\x01", True),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xff", -1),
        (b"u\xff\xff", 65_535),
        (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"l" + b"\xff" * 8, -1),
        (b"f\x3f\x80\x00\x00", 1.0),
        (b"d\x3f\xf0" + b"\x00" * 6, 1.0),
        (b"D\x02\x00\x00\x00\x7b", Decimal("1.23")),
        (b"V", None),
        (b"T" + struct.pack(">Q", 1_767_225_600), datetime(2026, 1, 1, tzinfo=UTC)),
        (b"T" + struct.pack(">Q", 1_767_225_600_000), datetime(2026, 1, 1, tzinfo=UTC)),
        (b"S\x00\x00\x00\x01\xe9", b"\xe9"),
        (b"x\x00\x00\x00\x01a", b"a"),
    ],
)
def test_each_type_of_value_is_what_it_is(value: bytes, expected: object) -> None:
    found = decode(header(b"x", value).properties)
    assert (found.headers, found.problem) == ({"x": expected}, None)


def test_one_property_that_cannot_be_decoded_costs_only_itself() -> None:
    found = decode(properties(app_id=short(LATIN), type=short(b"t"), message_id=short(b"m")).properties)
    assert found.values == {"type": "t", "message_id": "m"}
    assert found.problem == "its property app_id is not text in UTF-8"


def test_one_header_that_cannot_be_decoded_costs_only_itself() -> None:
    found = decode(Malformed(entries={b"good": b"B\x01", LATIN: b"V", b"late": b"B\x02"}).properties)
    assert found.headers == {"good": 1, "late": 2}
    assert found.problem == "its header caf\\xe9 is not text in UTF-8"


@pytest.mark.parametrize("opening", [b"A", b"F"])
def test_a_nesting_that_is_deep_is_decoded_and_one_that_is_too_deep_is_not(opening: bytes) -> None:
    assert decode(header(b"x", nested(opening, DEEPEST)).properties).problem is None
    found = decode(header(b"x", nested(opening, 20_000)).properties)
    assert (found.headers, found.problem) == ({}, f"its header x is nested deeper than {DEEPEST}")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_mended_frame_is_one_that_the_library_can_decode(attack: str) -> None:
    message = ATTACKS[attack]
    frame = ContentHeader()
    frame.unmarshal(mended(2, struct.pack(">HHQ", 60, 0, 5) + message.properties))
    assert frame.properties is not None
    assert (frame.body_size, frame.properties.headers) == (5, {"octets": bytearray(message.properties)})


def test_a_mended_frame_keeps_an_id_that_can_be_decoded() -> None:
    frame = ContentHeader()
    message = properties(message_id=short(b"m-1"), app_id=short(LATIN))
    frame.unmarshal(mended(2, struct.pack(">HHQ", 60, 0, 0) + message.properties))
    assert frame.properties is not None
    assert frame.properties.message_id == "m-1"


def test_a_reply_that_is_cut_off_in_a_character_is_mended() -> None:
    """RabbitMQ cuts the reason for which it closes a channel at 255 octets, and the name in it may be in any script."""
    text = ("é" * 200).encode()[:255]
    payload = struct.pack(">HHH", 20, 40, 404) + short(text) + struct.pack(">HH", 50, 10)
    close = commands.Channel.Close()
    close.unmarshal(mended(1, payload)[4:])
    assert (close.reply_code, close.class_id, close.method_id) == (404, 50, 10)
    assert close.reply_text.startswith("éé")


# -------------------------------------------------------------------- dead letters


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_letter_is_no_longer_than_a_frame_and_says_its_reason(attack: str) -> None:
    octets = letter(decode(ATTACKS[attack].properties), "m-1", {REASON: "why"}, FRAME)
    assert len(octets) + 20 <= FRAME
    found = decode(octets)
    assert (found.headers[REASON], found.values["message_id"], found.values["delivery_mode"]) == ("why", "m-1", 2)


def test_a_letter_that_dies_again_tells_of_its_last_death_only() -> None:
    once = decode(letter(decode(Malformed(body=UNREADABLE).properties), "m-1", {REASON: "first"}, FRAME))
    again = decode(letter(once, "m-1", {REASON: "second"}, FRAME))
    assert [name for name, _ in again.entries] == [REASON.encode()]
    assert again.headers == {REASON: "second"}


def test_an_id_that_is_no_text_is_kept_in_a_header() -> None:
    found = decode(letter(decode(properties(message_id=short(LATIN)).properties), "sha256:0", {}, FRAME))
    assert (found.values["message_id"], found.headers[MESSAGE_ID]) == ("sha256:0", LATIN)


def test_a_letter_neither_expires_nor_goes_where_its_original_says() -> None:
    original = Malformed(
        {"expiration": short(b"1"), "reply_to": short(b"r"), "priority": b"\x09", "user_id": short(b"u")}
    )
    found = decode(letter(decode(original.properties), "m-1", {}, FRAME))
    assert found.values == {"delivery_mode": 2, "message_id": "m-1"}
    copied = decode(letter(decode(header(b"BCC", nested(b"A", 1)).properties), "m-1", {}, FRAME))
    assert list(copied.headers) == [DROPPED]


def test_what_our_relay_sends_has_no_problem() -> None:
    octets = commands.Basic.Properties(content_type=CONTENT_TYPE, headers={"cloudEvents_id": "ü"}).marshal()
    assert decode(octets).problem is None
