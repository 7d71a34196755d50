"""Decode the properties of a message from their octets. Decoding never raises.

RabbitMQ checks little of what a publisher sends: text need not be UTF-8, a timestamp need not be in seconds, tables may
be nested thousands deep. So each property and each header is first located by its length and then decoded. One that
cannot be decoded does not affect the others: `Properties.problem` names it, and its octets are kept, because a dead
letter carries the message's properties as they came.

Source: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, sections 4.2.5 and 4.2.6, and
https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3 for the types of values.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

Kind = Literal["text", "table", "octet", "time"]
Value = str | int | bytes

# In the order of the wire; the first has the highest bit of the flags.
FIELDS: tuple[tuple[str, Kind], ...] = (
    ("content_type", "text"),
    ("content_encoding", "text"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "text"),
    ("reply_to", "text"),
    ("expiration", "text"),
    ("message_id", "text"),
    ("timestamp", "time"),
    ("type", "text"),
    ("user_id", "text"),
    ("app_id", "text"),
    ("cluster_id", "text"),
)
FLAG = {name: 1 << 15 - n for n, (name, _) in enumerate(FIELDS)}
DEEPEST = 32
_MORE_FLAGS = 1

_CODES = zip("tbBsUuIilLfd", "?bBhhHiIqqfd", strict=True)
_NUMBERS = {ord(kind): struct.Struct(f">{code}") for kind, code in _CODES}
_SIZES = {**{kind: number.size for kind, number in _NUMBERS.items()}, ord("D"): 5, ord("T"): 8, ord("V"): 0, 0: 0}
_LONG = frozenset(b"SxAF")  # types that begin with a length of four octets
_MILLISECONDS_FROM = 1 << 32


class Malformed(ValueError):
    """The octets are malformed; the text says how."""


@dataclass(slots=True)
class Properties:
    """The properties of a message.

    Attributes:
        octets: The octets of each property that is present.
        entries: Each header: the octets of its name, and all of its octets.
        values: The value of each property that could be decoded.
        headers: The value of each header that could be decoded.
        problem: The first fault in decoding; ``None`` if everything could be decoded.
    """

    octets: dict[str, bytes] = field(default_factory=dict)
    entries: list[tuple[bytes, bytes]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def blame(self, problem: str) -> None:
        if self.problem is None:
            self.problem = problem


def decode(octets: bytes) -> Properties:
    """Return the properties that a content header holds after the size of the body."""
    found = Properties()
    try:
        for name, kind, each in _split(octets):
            found.octets[name] = each
            _decode_property(found, name, kind, each)
    except Malformed as reason:
        found.blame(f"its properties are malformed: {reason}")
    return found


def find(octets: bytes, name: str) -> bytes:
    """Return the octets of one property; empty if it is missing or not text in UTF-8."""
    with suppress(Malformed):
        for known, kind, each in _split(octets):
            if known == name:
                _PROPERTY[kind](each)
                return each
    return b""


def encode(fields: Mapping[str, bytes]) -> bytes:
    """Encode properties, given as octets, for a content header."""
    names = [name for name, _ in FIELDS if name in fields]
    return sum(FLAG[name] for name in names).to_bytes(2) + b"".join(fields[name] for name in names)


def text(value: str) -> bytes:
    """Return the octets of a text property, cut to the limit of 255 octets."""
    octets = value.encode()
    return bytes((len(octets),)) + octets


def table(entries: Iterable[bytes]) -> bytes:
    """Return the octets of a table of these entries."""
    octets = b"".join(entries)
    return len(octets).to_bytes(4) + octets


def entry(name: str, value: Value) -> bytes:
    """Return the octets of one header."""
    if isinstance(value, int):
        return text(name) + b"I" + value.to_bytes(4, signed=True)
    octets = value.encode(errors="replace") if isinstance(value, str) else value
    return text(name) + (b"S" if isinstance(value, str) else b"x") + len(octets).to_bytes(4) + octets


def _decode_property(found: Properties, name: str, kind: Kind, octets: bytes) -> None:
    if kind == "table":
        _decode_headers(found, octets)
        return
    try:
        found.values[name] = _PROPERTY[kind](octets)
    except Malformed as reason:
        found.blame(f"its property {name} {reason}")


def _decode_headers(found: Properties, octets: bytes) -> None:
    try:
        for name, value in _entries(octets[4:]):
            found.entries.append((name, bytes((len(name),)) + name + value))
            try:
                found.headers[_text(name)] = _value(value, 0)
            except Malformed as reason:
                found.blame(f"its header {ascii(name)[2:-1]} {reason}")
    except Malformed as reason:
        found.blame(f"its headers are malformed: {reason}")


# ---------------------------------------------------------------------- lengths


def _split(octets: bytes) -> Iterator[tuple[str, Kind, bytes]]:
    flags, at = int.from_bytes(octets[:2]), 2
    if len(octets) < 2 or flags & _MORE_FLAGS:
        raise Malformed("they begin with no flags that are known")
    for name, kind in FIELDS:
        if flags & FLAG[name]:
            end = _end(octets, at, kind)
            yield name, kind, octets[at:end]
            at = end


def _end(octets: bytes, at: int, kind: Kind) -> int:
    match kind:
        case "text":
            end = at + 1 + int.from_bytes(octets[at : at + 1])
        case "table":
            end = at + 4 + int.from_bytes(octets[at : at + 4])
        case "octet":
            end = at + 1
        case "time":
            end = at + 8
    return _within(end, octets)


def _entries(octets: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and values of a table."""
    at = 0
    while at < len(octets):
        start = at + 1
        at = _within(start + octets[at], octets)
        name = octets[start:at]
        end = _value_end(octets, at)
        yield name, octets[at:end]
        at = end


def _items(octets: bytes) -> Iterator[bytes]:
    """Yield the values of an array."""
    at = 0
    while at < len(octets):
        end = _value_end(octets, at)
        yield octets[at:end]
        at = end


def _value_end(octets: bytes, at: int) -> int:
    _within(at + 1, octets)
    kind = octets[at]
    if kind in _LONG:
        return _within(at + 5 + int.from_bytes(octets[at + 1 : at + 5]), octets)
    if kind not in _SIZES:
        raise Malformed(f"type {chr(kind)!a} does not exist")
    return _within(at + 1 + _SIZES[kind], octets)


def _within(end: int, octets: bytes) -> int:
    if end > len(octets):
        raise Malformed("they end too early")
    return end


# ----------------------------------------------------------------------- values


def _value(octets: bytes, depth: int) -> Any:
    kind, content = octets[0], octets[1:]
    if depth > DEEPEST:
        raise Malformed(f"is nested deeper than {DEEPEST}")
    if (number := _NUMBERS.get(kind)) is not None:
        return number.unpack(content)[0]
    match chr(kind):
        case "S":
            return _text_or_bytes(content[4:])
        case "x":
            return content[4:]
        case "T":
            return _time(content)
        case "D":
            return Decimal(int.from_bytes(content[1:], signed=True)).scaleb(-content[0])
        case "A":
            return [_value(each, depth + 1) for each in _items(content[4:])]
        case "F":
            return {_text(name): _value(each, depth + 1) for name, each in _entries(content[4:])}
    return None


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise Malformed("is not text in UTF-8") from None


def _text_or_bytes(octets: bytes) -> str | bytes:
    """Return a long string as text, or as bytes if it is not text in UTF-8."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets


def _time(octets: bytes) -> datetime:
    """Return an instant. AMQP counts seconds; milliseconds, which some publishers send, are recognised."""
    count = int.from_bytes(octets)
    try:
        return datetime.fromtimestamp(count / 1000 if count >= _MILLISECONDS_FROM else count, UTC)
    except (ValueError, OverflowError, OSError):
        raise Malformed(f"is not a time: it counts neither seconds nor milliseconds ({count})") from None


_PROPERTY: Mapping[Kind, Callable[[bytes], Any]] = {
    "text": lambda octets: _text(octets[1:]),
    "octet": lambda octets: octets[0],
    "time": _time,
}
