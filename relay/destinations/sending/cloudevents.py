"""CloudEvents 1.0 over HTTP: binary mode for one message, the JSON batch format for several.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote

from outbox import Message
from outbox.checks.attributes import HEADER_NAME, HEADER_VALUE, MAX_HEADER_BYTES, is_reserved
from relay.destinations.sending.instants import rfc3339

JSON_TYPE = "application/json"
BATCH_TYPE = "application/cloudevents-batch+json; charset=utf-8"
UTC = "+00:00"
TRACE = ("traceparent", "tracestate")

Header = tuple[bytes, bytes]
SPECVERSION: Header = (b"ce-specversion", b"1.0")

# Section 3.1.3.2 of the binding: all characters except printable ASCII are percent-encoded, and so are space, " and %.
_AS_IT_IS = re.compile(r"[!#$&-~]*")
_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def binary_headers(message: Message) -> list[Header]:
    """Return a message's attributes as headers; the body is its data, unchanged.

    A subject that was written by SQL may be longer than receivers accept in a header. It is then left out: it is
    optional.
    """
    headers = [
        SPECVERSION,
        (b"ce-id", encoded(message.id)),
        (b"ce-type", _known(message.type)),
        (b"ce-source", _known(message.source)),
        (b"ce-time", rfc3339(message, UTC).encode()),
    ]
    if message.subject is not None and len(subject := encoded(message.subject)) <= MAX_HEADER_BYTES:
        headers.append((b"ce-subject", subject))
    return headers


def producer_headers(message: Message) -> Iterator[Header]:
    """Yield the producer's own headers and its trace.

    A message that was written by SQL may have any headers. A reserved or invalid name is left out, as is a value that
    is too long; characters that could break out of a header are percent-encoded.
    """
    for name, value in message.headers.items():
        if _is_free(name):
            value = str(value)
            line = name.encode(), value.encode() if HEADER_VALUE.fullmatch(value) else _quoted(value)
            if len(line[0]) + len(line[1]) <= MAX_HEADER_BYTES:
                yield line


def batch(messages: Iterable[Message]) -> bytes:
    """Return the messages in the JSON batch format; the data of each is included byte for byte.

    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md#4-json-batch-format
    """
    return b"[" + b",".join(map(_event, messages)) + b"]"


def fits_a_batch(message: Message) -> bool:
    """Return whether the batch format can hold the whole message: it can hold no headers except those of the trace."""
    return not message.headers or all(name in TRACE for name in message.headers)


def _event(message: Message) -> bytes:
    attributes = (
        f'{{"specversion":"1.0","id":{json.dumps(message.id)},{_type_and_source(message.type, message.source)},'
        f'"time":"{rfc3339(message, UTC)}"'
    )
    if message.subject is not None:
        attributes += f',"subject":{json.dumps(message.subject)}'
    for name, value in message.headers.items():
        attributes += f',"{name}":{json.dumps(str(value))}'
    return attributes.encode() + b',"datacontenttype":"application/json","data":' + message.body + b"}"


def encoded(text: str) -> bytes:
    """Return text in a form that is valid in a header."""
    return text.encode() if _AS_IT_IS.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> bytes:
    return quote(text, safe=_SAFE, errors="replace").encode()


# Types, sources and header names are few, unless they are generated; then the oldest are forgotten.
_known = lru_cache(maxsize=1024)(encoded)


@lru_cache(maxsize=1024)
def _type_and_source(type_: str, source: str) -> str:
    return f'"type":{json.dumps(type_)},"source":{json.dumps(source)}'


@lru_cache(maxsize=1024)
def _is_free(name: str) -> bool:
    if name.lower() in TRACE:
        return True
    return bool(HEADER_NAME.fullmatch(name)) and not is_reserved(name)
