"""The octets of AMQP properties: for any octets, decoding reports what it found and never raises."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.header import ContentHeader
from support.malformed import ATTACKS, LATIN, UNREADABLE, Malformed, header, nested, properties, short

from listeners.rabbitmq.dead import DROPPED, OCTETS, REASON, letter
from listeners.rabbitmq.frames import mended
from listeners.rabbitmq.properties import Properties, decode
from relay.destinations.rabbitmq.wire import CONTENT_TYPE

FRAME = 131_072


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


def test_what_cannot_be_decoded_is_kept_in_octets() -> None:
    octets = properties(app_id=short(LATIN), type=short(b"t"), message_id=short(b"m")).properties
    found = decode(octets)
    assert (found.octets, found.values.message_id, found.values.message_type) == (octets, "m", "t")
    assert str(found.problem).startswith("its properties cannot be decoded: UnicodeDecodeError: ")


@pytest.mark.parametrize("opening", [b"A", b"F"])
def test_what_is_nested_too_deep_or_too_long_has_a_problem(opening: bytes) -> None:
    assert decode(header(b"x", nested(opening, 32)).properties).problem is None
    assert "RecursionError" in str(decode(header(b"x", nested(opening, 1500)).properties).problem)
    assert "at most 32,768" in str(decode(header(b"x", nested(opening, 20_000)).properties).problem)


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


def letter_of(original: Malformed | Properties, told: dict[str, Any] | None = None) -> Properties:
    found = original if isinstance(original, Properties) else decode(original.properties)
    return decode(letter(found, "m-1", told or {}, FRAME).marshal())


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_letter_can_be_decoded_and_says_its_reason(attack: str) -> None:
    found = letter_of(ATTACKS[attack], {REASON: "why"})
    assert found.problem is None
    assert (found.headers[REASON], found.values.message_id, found.values.delivery_mode) == ("why", "m-1", 2)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_letter_has_all_of_its_original_or_says_that_there_was_no_room(attack: str) -> None:
    original = decode(ATTACKS[attack].properties)
    found = letter_of(original)
    if DROPPED not in found.headers and found.headers != original.headers:
        assert found.headers == {OCTETS: bytearray(original.octets)}


def test_a_header_that_encoding_would_change_is_kept_in_octets() -> None:
    original = header(b"price", b"d" + struct.pack(">d", 0.1))
    assert letter_of(original).headers == {OCTETS: bytearray(original.properties)}


def test_a_letter_that_dies_again_tells_of_its_last_death_only() -> None:
    once = letter_of(Malformed(body=UNREADABLE), {REASON: "first"})
    assert letter_of(once, {REASON: "second"}).headers == {REASON: "second"}


def test_a_letter_neither_expires_nor_goes_where_its_original_says() -> None:
    original = Malformed(
        {"expiration": short(b"1"), "reply_to": short(b"r"), "priority": b"\x09", "user_id": short(b"u")}
    )
    values = letter_of(original).values
    set_here = {name: getattr(values, name) for name in values.__slots__ if getattr(values, name) not in (None, "", {})}
    assert set_here == {"delivery_mode": 2, "message_id": "m-1"}
    assert list(letter_of(header(b"BCC", nested(b"A", 1))).headers) == [DROPPED]


def test_what_our_relay_sends_has_no_problem() -> None:
    octets = commands.Basic.Properties(content_type=CONTENT_TYPE, headers={"cloudEvents_id": "ü"}).marshal()
    assert decode(octets).problem is None
