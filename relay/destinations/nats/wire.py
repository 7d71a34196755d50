"""Encode a message for NATS: the data is the payload, headers hold the rest.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md (binary mode), and
for the other headers https://docs.nats.io/nats-concepts/jetstream/headers
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from outbox import Message
from relay.destinations.sending import naming
from relay.destinations.sending.cloudevents import JSON_TYPE, binary_headers, encoded, producer_headers

MESSAGE_ID = "Nats-Msg-Id"
EXPECTED_STREAM = "Nats-Expected-Stream"
RESERVED = "nats-"  # the server interprets headers with this prefix

_LINE, _END, _PER_HEADER = len("NATS/1.0\r\n"), len("\r\n"), len(": \r\n")


def subject_of(template: str) -> Callable[[Message], str]:
    """Return a function that makes a message's subject. Characters that a token cannot hold are percent-encoded."""
    return naming.namer(template, _type, _token)


def headers(message: Message, stream: str | None) -> dict[str, str]:
    """Return a message's headers.

    Args:
        message: The message.
        stream: The stream that must take it; ``None`` for any.
    """
    found = {name.decode(): value.decode() for name, value in binary_headers(message)}
    found["Content-Type"] = JSON_TYPE
    if message.ordering_key is not None:
        found["ce-partitionkey"] = encoded(message.ordering_key).decode()
    if message.headers:
        for name, value in producer_headers(message):
            if not name.lower().startswith(RESERVED.encode()):
                found[name.decode()] = value.decode("latin-1")
    found[MESSAGE_ID] = message.id
    if stream is not None:
        found[EXPECTED_STREAM] = stream
    return found


def size(headers: dict[str, str], body: bytes) -> int:
    """Return the size that the server compares with its limit, in bytes."""
    named = sum(len(name) + len(value.encode()) + _PER_HEADER for name, value in headers.items())
    return _LINE + named + _END + len(body)


def _type(text: str) -> str:
    """Return a type as several tokens, separated by dots; an empty token is not valid."""
    return ".".join(_token(part) or "%" for part in text.split("."))


def _token(text: str) -> str:
    return quote(text, safe="-_~:@+=").replace(".", "%2E")
