"""Clients that send slowly: each is cut off, and other clients are not affected."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.serving import serving

from listeners.http import Limits, Receiver, create_app
from outbox import Message
from relay.databases.database import Database

SECRET = "0123456789abcdef0123456789abcdef"
HEAD = (
    b"POST /extraction/internal/completed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"X-Internal-Secret: " + SECRET.encode() + b"\r\n"
)


def handle(message: Message) -> None: ...


@asynccontextmanager
async def connection(
    *, receive_timeout_s: float, limits: Limits | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    app = create_app(Receiver([SECRET], handler=handle, limits=limits), Database.parse("sqlite:///none.db"))
    async with serving(app, receive_timeout_s=receive_timeout_s) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def drip_until_cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a byte at intervals until the other side closes; return what it sent meanwhile."""
    said = asyncio.create_task(_all(reader))
    async with asyncio.timeout(30):
        while not said.done():
            writer.write(b"x")
            await asyncio.wait([said], timeout=0.05)
    return await said


async def _all(reader: asyncio.StreamReader) -> bytes:
    said = b""
    try:
        while chunk := await reader.read(65_536):
            said += chunk
    except ConnectionError:
        return said
    return said


@pytest.mark.parametrize(
    "start", [b"", b"POST /ext", HEAD + b"X-More: "], ids=["nothing", "a request line", "a header"]
)
async def test_headers_that_drip_are_cut_off(start: bytes) -> None:
    async with connection(receive_timeout_s=0.3) as (reader, writer):
        writer.write(start)
        assert await drip_until_cut_off(reader, writer) == b""


async def test_a_connection_that_never_says_anything_is_closed() -> None:
    async with connection(receive_timeout_s=0.3) as (reader, _), asyncio.timeout(30):
        assert await _all(reader) == b""


async def test_a_body_that_drips_is_told_so_and_cut_off() -> None:
    async with connection(receive_timeout_s=60, limits=Limits(receive_timeout_s=0.3)) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        said = await drip_until_cut_off(reader, writer)
    assert said.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_was_refused_and_goes_on_sending_is_cut_off() -> None:
    async with connection(receive_timeout_s=0.5, limits=Limits(max_body_bytes=10)) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 100000000\r\n\r\n")
        await drip_until_cut_off(reader, writer)


async def test_the_second_request_of_a_connection_has_a_deadline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connection(receive_timeout_s=60) as (reader, writer):
        writer.write(HEAD + b'Content-Length: 18\r\n\r\n{"contentId": "a"}')
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        soon = property(lambda _: 0.3)  # from now on: the first request may take longer on a busy machine
        monkeypatch.setattr("relay.serving.protocol._Deadline._timeout_s", soon, raising=False)
        writer.write(HEAD)
        assert await drip_until_cut_off(reader, writer) == b""


async def test_a_request_in_pieces_that_comes_in_time_is_taken() -> None:
    async with connection(receive_timeout_s=60) as (reader, writer):
        for byte in HEAD + b'Content-Length: 18\r\n\r\n{"contentId": "a"}':
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")


async def test_headers_without_end_are_refused() -> None:
    async with connection(receive_timeout_s=60) as (reader, writer):
        writer.write(HEAD + b"X-More: " + b"x" * 200_000)
        async with asyncio.timeout(30):
            assert (await _all(reader)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b""))
