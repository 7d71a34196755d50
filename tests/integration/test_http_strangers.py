"""Strangers who hold connections, send too much or read nothing: the real sender gets its answers."""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.databases import Database
from support.ports import free_port
from support.processes import Spawner
from support.waiting import eventually, eventually_async

from listeners.http import Receiver, create_app
from outbox import Message
from relay.databases.database import Database as RelayDatabase
from relay.observe.health import HealthServer
from relay.serving import Server, listen, make_server

SECRET = "0123456789abcdef0123456789abcdef"
PATH = "/extraction/internal/completed"
BODY = b'{"contentId": "a"}'
OUTBOX = Path(sys.executable).with_name("outbox")
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Internal-Secret: {SECRET}\r\n".encode()
CALL = HEAD + b"Content-Length: 18\r\n\r\n" + BODY


def handle(message: Message) -> None: ...


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[tuple[Server, int]]:
    """Serve a receiver with these limits; return its server and port."""
    server = make_server(
        create_app(Receiver([SECRET], handler=handle), RelayDatabase.parse("sqlite:///none.db")), grace_s=5, **limits
    )
    listening = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield server, listening.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


async def call(port: int, address: str = "127.0.0.1") -> int:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=30) as client:
        headers = {"X-Internal-Secret": SECRET}
        return (
            await client.post(f"http://127.0.0.1:{port}{PATH}", json={"contentId": "a"}, headers=headers)
        ).status_code


async def idle(stack: AsyncExitStack, port: int, count: int, address: str) -> None:
    """Connections that never say anything."""
    for _ in range(count):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return the next line of an answer; an empty one after the end of the connection."""
    async with asyncio.timeout(30):
        try:
            return await reader.readline()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("addresses", [1, 20])
async def test_idle_connections_of_one_address_or_many_do_not_keep_the_sender_out(addresses: int) -> None:
    async with served(connections=40) as (server, port), AsyncExitStack() as stack:
        for n in range(addresses):
            await idle(stack, port, 100 // addresses, f"127.0.1.{n + 1}")
        assert [await call(port) for _ in range(20)] == [200] * 20
        assert len(server.server_state.connections) <= 40


async def test_one_client_has_a_quarter_of_the_connections() -> None:
    async with served(connections=40) as (server, port), AsyncExitStack() as stack:
        await idle(stack, port, 30, "127.0.1.1")
        await eventually_async(lambda: len(server.server_state.connections) == 10)
        assert await call(port, "127.0.1.1") == 200


async def test_a_proxy_may_have_as_many_connections_as_there_is_room_for() -> None:
    async with served(connections=40, proxies=("127.0.1.1",)) as (server, port), AsyncExitStack() as stack:
        await idle(stack, port, 30, "127.0.1.1")
        await eventually_async(lambda: len(server.server_state.connections) == 30)


@asynccontextmanager
async def asking_and_reading_nothing(port: int) -> AsyncIterator[None]:
    loop, ask = asyncio.get_running_loop(), b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        asking = asyncio.create_task(loop.sock_sendall(sock, ask * 20_000))
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def test_a_client_that_reads_no_answers_is_cut_off() -> None:
    async with served(send_timeout_s=0.3) as (server, port), asking_and_reading_nothing(port):
        await eventually_async(lambda: server.server_state.total_requests > 0)
        await eventually_async(lambda: not server.server_state.connections)
        assert await call(port) == 200


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"X-Long: " + b"x" * 97_000 + b"\r\n", id="97 kB in one header"),
        pytest.param(b"X-Short: x\r\n" * 10_000, id="100 kB in many headers"),
        pytest.param(b"X-Long: " + b"x" * 33_000 + b"\r\n", id="a little too long"),
    ],
)
async def test_a_header_that_is_too_long_is_refused(more: bytes) -> None:
    async with served() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + more + b"Content-Length: 18\r\n\r\n" + BODY)
        assert not (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        writer.transport.abort()


async def test_a_header_that_is_sent_before_its_turn_has_the_same_limit() -> None:
    """h11 measures a header while it is incomplete; this one is complete when its turn comes."""
    async with served() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CALL + HEAD + b"X-Long: " + b"x" * 97_000 + b"\r\nContent-Length: 18\r\n\r\n" + BODY)
        said = b""
        while chunk := await answer(reader):
            said += chunk
        writer.transport.abort()
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.count(b"HTTP/1.1 200 ") == 1


async def test_headers_of_a_usual_length_are_taken() -> None:
    async with served() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"X-Long: " + b"x" * 30_000 + b"\r\nContent-Length: 18\r\n\r\n" + BODY)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        writer.transport.abort()


async def test_what_is_no_http_is_logged_a_few_times_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with served() as (_, port):
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\x16\x03\x01 no HTTP\r\n\r\n")
            await answer(reader)
            writer.transport.abort()
    lines = [record for record in caplog.records if "Invalid HTTP request" in record.getMessage()]
    assert len(lines) <= 5


def test_with_few_descriptors_it_answers_and_its_log_stays_short(sqlite_database: Database, spawn: Spawner) -> None:
    env = {"DATABASE_URL": sqlite_database.url, "INTERNAL_API_SECRET": SECRET}
    port = free_port()
    process = spawn("sh", "-c", f"ulimit -n 128; exec {OUTBOX} serve --port {port}", env=env)
    process.wait_for_output("receiving on", deadline_s=30)
    held = [
        socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.2.{n % 50 + 1}", 0)) for n in range(400)
    ]
    try:
        eventually(lambda: answers(port), deadline_s=30, ignoring=(httpx.HTTPError,))
        assert process.is_running
        assert len(process.stderr) < 50_000
    finally:
        for each in held:
            each.close()


def answers(port: int) -> bool:
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


class Well:
    database, schema, loop_age_s, owns, detail = True, True, 0.1, 64, ""

    def health(self) -> "Well":
        return self


async def test_idle_connections_do_not_block_the_health_page() -> None:
    port = free_port()
    async with HealthServer(Well(), port), AsyncExitStack() as stack:
        for n in range(20):
            await idle(stack, port, 10, f"127.0.1.{n + 1}")
        assert await asyncio.to_thread(answers, port)


def flood(port: int, address: str) -> list[int]:
    """Ask for the pages in turn until one is refused, and return the statuses."""
    statuses: list[int] = []
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(trust_env=False, timeout=30, transport=transport) as client:
        while 429 not in statuses and len(statuses) < 10_000:
            page = ("healthz", "readyz", "metrics")[len(statuses) % 3]
            statuses.append(client.get(f"http://127.0.0.1:{port}/{page}").status_code)
    return statuses


async def test_a_flood_of_requests_is_refused_and_costs_another_client_no_health_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.observe.health.REQUESTS_PER_S", 1.0)  # a busy machine may be no faster than the limit
    port = free_port()
    async with HealthServer(Well(), port, metrics=lambda: b""):
        statuses = await asyncio.to_thread(flood, port, "127.0.1.1")
        assert set(statuses[:-1]) == {200}
        assert (len(statuses) > 20, statuses[-1]) == (True, 429)
        assert await asyncio.to_thread(answers, port)


@pytest.mark.parametrize("path", ["/healthz/", PATH + "/"])
async def test_a_trailing_slash_is_another_page_and_the_host_header_is_not_repeated(path: str) -> None:
    async with served() as (_, port), httpx.AsyncClient(trust_env=False, timeout=60) as client:
        url = f"http://127.0.0.1:{port}{path}"
        for method in ("GET", "POST"):
            said = await client.request(method, url, headers={"Host": "evil.test", "X-Internal-Secret": SECRET})
            assert said.status_code == 404
            assert "evil" not in f"{said.headers}{said.text}"


async def test_the_health_page_does_not_repeat_the_host_header_either() -> None:
    port = free_port()
    async with HealthServer(Well(), port), httpx.AsyncClient(trust_env=False, timeout=60) as client:
        said = await client.get(f"http://127.0.0.1:{port}/healthz/", headers={"Host": "evil.test"})
    assert (said.status_code, "evil" in f"{said.headers}{said.text}") == (404, False)
