"""Parse a queue's messages: ours, CloudEvents of other systems, or the guide's bare ``{"contentId": "…"}``.

The work happens once for each event id. The guide's publisher sends no id, so its messages are identified by their
content.

For any message that a publisher may send, these functions raise only `Unreadable`.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from aio_pika.abc import AbstractIncomingMessage

from listeners.rabbitmq.frames import OCTETS
from listeners.rabbitmq.properties import Properties, decode
from outbox import Message
from relay.platform.guide import id_by_content

STRUCTURED = "application/cloudevents"
PREFIXES = ("cloudEvents_", "cloudEvents:")
REPLACED = "\ufffd"
LARGE_BYTES = 16 * 1024
LONGEST_ID = 255  # bytes: the limit of a dead letter


class Unreadable(Exception):
    """The message is malformed, so no listener can process it; the text says why.

    Attributes:
        id: The id of its dead letter.
    """

    id = ""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message of a queue.

    Args:
        body: The body, in bytes.
        properties: Its decoded properties.
        exchange: The exchange that it was published to.
        routing_key: The routing key that it was published with.
        ack: Acknowledges it to the broker.
    """

    body: bytes
    properties: Properties
    exchange: str
    routing_key: str
    ack: Callable[[], Awaitable[None]]

    @classmethod
    def of(cls, message: AbstractIncomingMessage) -> Incoming:
        """Convert a message that a `TolerantConnection` received."""
        properties = decode(_properties(message))
        return cls(message.body, properties, message.exchange or "", message.routing_key or "", message.ack)

    def text(self, name: str) -> str | None:
        """Return the property of this name, if it exists and is text."""
        found = getattr(self.properties.values, name)
        return found if isinstance(found, str) else None


def is_large(message: AbstractIncomingMessage) -> bool:
    """Return whether parsing it takes long enough to hold up other messages."""
    return len(message.body) > LARGE_BYTES or len(_properties(message)) > LARGE_BYTES


def _properties(message: AbstractIncomingMessage) -> bytes:
    octets = message.headers[OCTETS]
    assert isinstance(octets, bytes | bytearray)
    return bytes(octets)


def understand(message: AbstractIncomingMessage, max_body_bytes: int) -> tuple[Incoming, Message | Unreadable]:
    """Parse a message; return it with the parsed message, or with the reason why it is unreadable."""
    incoming = Incoming.of(message)
    try:
        return incoming, read(incoming, max_body_bytes)
    except Unreadable as reason:
        reason.id = incoming.text("message_id") or id_of(incoming.body)
        return incoming, reason


def read(incoming: Incoming, max_body_bytes: int = 1024 * 1024) -> Message:
    """Parse a message.

    Raises:
        Unreadable: Its properties cannot be decoded, its body is too long or not JSON, or its attributes are malformed.
    """
    _check(incoming, max_body_bytes)
    body, headers = incoming.body, incoming.properties.headers
    data = _json(body)
    attributes = _attributes(headers)
    if (incoming.text("content_type") or "").lower().startswith(STRUCTURED):
        attributes, data, body = _structured(data)
    subject, key = attributes.get("subject"), attributes.get("partitionkey")
    return Message(
        _id(incoming.text("message_id") or attributes.get("id"), data, body),
        str(attributes.get("type") or incoming.text("message_type") or incoming.routing_key),
        str(attributes.get("source") or incoming.text("app_id") or "amqp"),
        None if subject is None else str(subject),
        None if key is None else str(key),
        body,
        {name: value for name, value in headers.items() if isinstance(value, str) and not _is_ours(name)},
        _instant(attributes.get("time") or incoming.properties.values.timestamp),
    )


def _check(incoming: Incoming, max_body_bytes: int) -> None:
    if len(incoming.body) > max_body_bytes:
        raise Unreadable(f"its body has {len(incoming.body):,} bytes, and at most {max_body_bytes:,} are read")
    if incoming.properties.problem is not None:
        raise Unreadable(incoming.properties.problem)
    for name in ("exchange", "routing_key"):
        if REPLACED in getattr(incoming, name):
            raise Unreadable(f"its {name.replace('_', ' ')} is not text in UTF-8")
    encoding = incoming.text("content_encoding") or "identity"
    if encoding.lower() not in ("identity", "utf-8"):
        raise Unreadable(f"the content encoding {encoding!r} is not understood")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_json)
    except UnicodeDecodeError:
        raise Unreadable("the body is not text in UTF-8") from None
    except ValueError as error:
        raise Unreadable(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise Unreadable("the body is JSON nested too deep") from None


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


def _attributes(headers: Mapping[str, Any]) -> dict[str, Any]:
    found = {name[len(PREFIXES[0]) :]: value for name, value in headers.items() if _is_ours(name)}
    for name, value in found.items():
        if isinstance(value, bytes | bytearray | list | dict):
            raise Unreadable(f"its attribute {ascii(name)[1:-1]} is not text in UTF-8")
    return found


def _is_ours(header: str) -> bool:
    return header.startswith(PREFIXES)


def _structured(event: Any) -> tuple[dict[str, Any], Any, bytes]:
    """Return the attributes and the data of an event in one JSON object."""
    if not isinstance(event, dict) or "data" not in event:
        raise Unreadable("a structured CloudEvent is a JSON object with data")
    try:
        return event, event["data"], json.dumps(event["data"], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unreadable("its data holds a lone surrogate, which is not a character") from None


def _id(given: Any, data: Any, body: bytes) -> str:
    if given is None or given == "":
        return _id_by_content(data, body)
    text = str(given)
    if not _is_id(text):
        raise Unreadable(f"an event id is printable, and 1 to {LONGEST_ID} bytes long")
    return text


def _id_by_content(data: Any, body: bytes) -> str:
    """Return an id made from the content, equal for all spellings of the JSON, and equal to the id over HTTP."""
    if isinstance(data, dict) and set(data) == {"contentId"} and isinstance(data["contentId"], str):
        text = id_by_content(data["contentId"])
        if _is_id(text):
            return text
    return id_of(json.dumps(data, sort_keys=True, separators=(",", ":")).encode())


def _is_id(text: str) -> bool:
    return text.isprintable() and len(text.encode()) <= LONGEST_ID


def id_of(body: bytes) -> str:
    """Return an id made from the body, for a message that has no id and cannot be parsed."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _instant(given: Any) -> datetime:
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            given = None
    if not isinstance(given, datetime):
        return datetime.now(UTC)
    try:
        return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    except OverflowError:  # a time near year 1 or 9999 that UTC cannot express
        return datetime.now(UTC)
