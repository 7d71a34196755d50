"""From what came out of a queue to a message: ours, anybody's CloudEvents, or the guide's bare ``{"contentId": "…"}``.

The id that makes the work happen once is the event's own. The guide's publisher sends none, so that its messages are
known by what they say.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from aio_pika.abc import AbstractIncomingMessage

from outbox import Message
from relay.guide import id_by_content

STRUCTURED = "application/cloudevents"
PREFIXES = ("cloudEvents_", "cloudEvents:")
LONGEST_ID = 255  # bytes, which is what a dead letter can carry


class Unreadable(Exception):
    """No listener could make anything of it; says why."""


def read(incoming: AbstractIncomingMessage) -> Message:
    """The message.

    Raises:
        Unreadable: Its body is not JSON, or its attributes are malformed.
    """
    if (incoming.content_encoding or "identity").lower() not in ("identity", "utf-8"):
        raise Unreadable(f"the content encoding {incoming.content_encoding!r} is not understood")
    data = _json(incoming.body)
    attributes = _attributes(incoming.headers)
    body = incoming.body
    if (incoming.content_type or "").lower().startswith(STRUCTURED):
        attributes, data, body = _structured(data)
    subject = attributes.get("subject")
    return Message(
        _id(incoming.message_id or attributes.get("id"), data, body),
        str(attributes.get("type") or incoming.type or incoming.routing_key or ""),
        str(attributes.get("source") or incoming.app_id or "amqp"),
        None if subject is None else str(subject),
        None if attributes.get("partitionkey") is None else str(attributes["partitionkey"]),
        body,
        {name: value for name, value in incoming.headers.items() if isinstance(value, str) and not _is_ours(name)},
        _instant(attributes.get("time") or incoming.timestamp),
    )


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
    raise ValueError(f"{constant} is no value in it")


def _attributes(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name[len(PREFIXES[0]) :]: value for name, value in headers.items() if _is_ours(name)}


def _is_ours(header: str) -> bool:
    return header.startswith(PREFIXES)


def _structured(event: Any) -> tuple[dict[str, Any], Any, bytes]:
    """Attributes and data of an event in one JSON object."""
    if not isinstance(event, dict) or "data" not in event:
        raise Unreadable("a structured CloudEvent is a JSON object with data")
    try:
        return event, event["data"], json.dumps(event["data"], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unreadable("its data holds a lone surrogate, which is no character") from None


def _id(given: Any, data: Any, body: bytes) -> str:
    if given is None or given == "":
        return _id_by_content(data, body)
    text = str(given)
    if not _is_id(text):
        raise Unreadable(f"an event id is printable, and 1 to {LONGEST_ID} bytes long")
    return text


def _id_by_content(data: Any, body: bytes) -> str:
    """The same whatever the spelling of the JSON; for the guide's messages, the one its HTTP calls have too."""
    if isinstance(data, dict) and set(data) == {"contentId"} and isinstance(data["contentId"], str):
        text = id_by_content(data["contentId"])
        if _is_id(text):
            return text
    return id_of(json.dumps(data, sort_keys=True, separators=(",", ":")).encode())


def _is_id(text: str) -> bool:
    return text.isprintable() and len(text.encode()) <= LONGEST_ID


def id_of(body: bytes) -> str:
    """An id for what has none and says nothing that we understand."""
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
    except OverflowError:  # the first or last hours of all years, in another zone
        return datetime.now(UTC)
