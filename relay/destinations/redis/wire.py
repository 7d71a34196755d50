"""Encode a message as an entry of a stream: the data's bytes, and the CloudEvents attributes beside them.

CloudEvents has no binding for Redis. Fields have the names of the attributes; the data is in ``data``. ``headers``
holds the producer's headers that are not attributes, as a JSON object.

Source: https://redis.io/docs/latest/commands/xadd/
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Callable

from outbox import Message
from relay.destinations.sending import instants

Argument = str | bytes | int
TRACE = ("traceparent", "tracestate")

# Redis remembers 100 ids of a producer for 100 s. When a relay is killed, relays send more messages than that before
# another relay repeats those of the killed relay. So messages are distributed over many producer names, by their ids.
PRODUCERS = 1024


class Wire:
    """Makes commands.

    Args:
        stream: Returns a message's stream key.
        maxlen: The maximum number of entries that Redis keeps; ``None``: all.
        producer: The prefix of the producer names under which Redis remembers ids.
    """

    def __init__(self, stream: Callable[[Message], str], maxlen: int | None, producer: str) -> None:
        self._stream = stream
        self._producer = producer
        self._trim: tuple[Argument, ...] = () if maxlen is None else ("MAXLEN", "~", maxlen)

    def command(self, message: Message, *, deduplicated: bool) -> list[Argument]:
        """Return the command that appends a message.

        Args:
            message: The message.
            deduplicated: Whether Redis drops the message if it already has it.
        """
        known: tuple[Argument, ...] = ()
        if deduplicated:
            known = ("IDMP", f"{self._producer}:{crc32(message.id.encode()) % PRODUCERS}", message.id)
        return ["XADD", self._stream(message), *known, *self._trim, "*", *fields(message)]


def fields(message: Message) -> list[Argument]:
    """Return the entry's fields, each name before its value; fixed names are bytes, which need no encoding."""
    found: list[Argument] = [
        b"specversion", b"1.0",
        b"id", message.id,
        b"type", message.type,
        b"source", message.source,
        b"time", instants.rfc3339(message),
        b"datacontenttype", b"application/json",
    ]  # fmt: skip
    if message.subject is not None:
        found += (b"subject", message.subject)
    if message.ordering_key is not None:
        found += (b"partitionkey", message.ordering_key)
    if message.headers:
        found += _headers(message.headers)
    return [*found, b"data", message.body]


def _headers(headers: dict[str, str]) -> list[Argument]:
    found: list[Argument] = []
    for name in TRACE:
        if name in headers:
            found += (name, str(headers[name]))
    if others := {name: str(value) for name, value in headers.items() if name not in TRACE}:
        found += ("headers", json.dumps(others, ensure_ascii=False))
    return found
