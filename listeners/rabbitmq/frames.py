"""A connection whose reader survives every message.

aiormq decodes every frame, and closes the connection if it cannot decode one. The broker then delivers the same message
again, and the messages behind it are never processed. So frames are repaired before aiormq sees them. aiormq gets the
octets of a message's properties in one header of ours, and `listeners.rabbitmq.properties` decodes them. In names that
are not UTF-8, U+FFFD replaces the invalid octets.

The hook is aiormq's own: a *transport factory* opens the stream that frames are read from.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

import aio_pika
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from yarl import URL

from listeners.rabbitmq.properties import HEAD, decode

OCTETS = "octets"  # the header that holds the original properties

_HEAD = struct.Struct(">BHI")
_METHOD, _HEADER = 1, 2
_LONGEST_TEXT = 255

# For each method that contains text chosen by others, or text that RabbitMQ truncates at 255 octets (possibly in the
# middle of a character): the number of octets before each text. (connection.close, channel.close, basic.return,
# basic.deliver, basic.get-ok)
_TEXTS = {
    (10, 50): (2,),
    (20, 40): (2,),
    (60, 50): (2, 0, 0),
    (60, 60): (0, 9, 0),
    (60, 71): (9, 0),
}


class TolerantConnection(aio_pika.Connection):
    """An aio-pika connection whose incoming frames are repaired."""

    def __init__(self, url: URL, *arguments: Any, **options: Any) -> None:
        super().__init__(url, *arguments, **options)
        transport = TLSTransportFactory() if self.url.scheme == "amqps" else TCPTransportFactory()
        self.kwargs["transport_factory"] = _Mending(transport)


class _Mending(TransportFactory):
    def __init__(self, transport: TransportFactory) -> None:
        self._transport = transport

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self._transport.create(url, **options)
        return cast("asyncio.StreamReader", _Reader(reader)), writer


class _Reader:
    """The part of a stream reader's interface that aiormq uses; it returns whole, repaired frames."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._ready = memoryview(b"")

    def at_eof(self) -> bool:
        return not self._ready and self._stream.at_eof()

    async def readexactly(self, size: int) -> bytes:
        if not self._ready:
            self._ready = memoryview(await self._frame())
        if len(self._ready) < size:
            raise asyncio.IncompleteReadError(bytes(self._ready), size)
        read, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return read

    async def _frame(self) -> bytes:
        head = await self._stream.readexactly(_HEAD.size)
        if head.startswith(b"AMQP"):
            return head  # the answer of a broker with another protocol version; aiormq handles it
        kind, channel, size = _HEAD.unpack(head)
        rest = await self._stream.readexactly(size + 1)
        if kind not in (_METHOD, _HEADER):
            return head + rest
        payload = mended(kind, rest[:-1])
        return _HEAD.pack(kind, channel, len(payload)) + payload + rest[-1:]


def mended(kind: int, payload: bytes) -> bytes:
    """Return the payload of a frame in a form that aiormq can decode."""
    if kind == _HEADER:
        return _wrapped(payload)
    texts = _TEXTS.get(struct.unpack(">HH", payload[:4]))
    return payload if texts is None or payload.isascii() else _with_readable(payload, texts)


def _wrapped(payload: bytes) -> bytes:
    """Return a content header with the properties in one header, and the id by which aiormq matches returns."""
    _, _, body_size = HEAD.unpack(payload[: HEAD.size])
    octets = payload[HEAD.size :]
    wrapper = Basic.Properties(headers={OCTETS: bytearray(octets)}, message_id=decode(octets).values.message_id)
    return ContentHeader(0, body_size, wrapper).marshal()


def _with_readable(payload: bytes, texts: tuple[int, ...]) -> bytes:
    at, parts = 4, [payload[:4]]
    for before in texts:
        start = at + before
        end = start + 1 + payload[start]
        text = _readable(payload[start + 1 : end])
        parts += payload[at:start], bytes((len(text),)), text
        at = end
    return b"".join((*parts, payload[at:]))


def _readable(octets: bytes) -> bytes:
    readable = octets.decode(errors="replace").encode()[:_LONGEST_TEXT]
    return readable.decode(errors="ignore").encode()  # do not cut off a character in the middle
