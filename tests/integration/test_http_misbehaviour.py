"""Receivers that misbehave on purpose: each one makes an outcome, and none affects the relay in any other way."""

import asyncio
import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.ports import free_port
from support.receivers import Behaviour, Receiver, Request, answering

from outbox import Message
from relay.decide.outcome import TAKEN, Outcome
from relay.destinations.http.destination import HttpDestination
from relay.destinations.http.settings import HttpSettings

SECRET = "a-shared-secret-of-forty-characters-long"
MESSAGE = Message("m-1", "extraction.completed", "outbox", None, None, '{"contentId": "c-1"}', "{}", "2026-01-01")


@asynccontextmanager
async def destination(url: str, **settings: Any) -> AsyncIterator[HttpDestination]:
    made = HttpDestination("api", HttpSettings(url=url, **({"secret": SECRET, "timeout_s": 30} | settings)))
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def outcome_of(behave: Behaviour, **settings: Any) -> Outcome:
    async with Receiver(behave) as receiver, destination(receiver.url, **settings) as api:
        return await api.send(MESSAGE)


def saying(*parts: bytes, then: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None) -> Behaviour:
    async def behave(_request: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        await (then or hang)(writer)

    return behave


async def hang(writer: asyncio.StreamWriter) -> None:
    await writer.wait_closed()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def drip(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(saying(), id="never answers"),
        pytest.param(saying(b"HTTP/1.1 200 OK\r\nx-long: ", then=drip), id="drips its headers"),
        pytest.param(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n", then=drip), id="drips its body"),
        pytest.param(saying(HEAD, b"half"), id="stops in the middle of its body"),
        pytest.param(saying(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 50), id="only ever says 100 Continue"),
    ],
)
async def test_one_deadline_holds_for_the_whole_exchange(behave: Behaviour) -> None:
    outcome = await outcome_of(behave, timeout_s=0.5)
    assert outcome == Outcome("unanswered", "no complete answer within 0.5 s")


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(saying(HEAD, b"half", then=close), id="closed"),
        pytest.param(saying(HEAD, b"half", then=reset), id="reset"),
        pytest.param(
            saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", then=close), id="chunked, closed"
        ),
    ],
)
async def test_a_success_that_breaks_off_in_its_body_is_no_success(behave: Behaviour) -> None:
    outcome = await outcome_of(behave)
    assert outcome.kind == "unanswered"
    assert "in the middle of its body" in outcome.reason


@pytest.mark.parametrize("end", [close, reset])
async def test_a_connection_that_ends_before_an_answer_is_a_failure_after_one_request(
    end: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with Receiver(saying(then=end)) as receiver, destination(receiver.url) as api:
        outcome = await api.send(MESSAGE)
        assert len(receiver.requests) == 1
    assert outcome == Outcome("unanswered", "the connection was closed before an answer came")


async def test_a_kept_connection_that_was_closed_meanwhile_costs_no_attempt() -> None:
    """The receiver closes it on the next request, as a receiver does whose timeout has just expired."""
    seen: list[asyncio.StreamWriter] = []

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        if writer in seen:
            await reset(writer)
        else:
            seen.append(writer)
            await answering(200)(request, writer)

    async with Receiver(behave) as receiver, destination(receiver.url) as api:
        assert [await api.send(MESSAGE), await api.send(MESSAGE)] == [TAKEN, TAKEN]
        assert (len(receiver.requests), receiver.connections) == (3, 2)


async def test_only_64_kib_of_a_gigabyte_are_kept() -> None:
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < 1 << 30 and not writer.is_closing():
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    tracemalloc.start()
    try:
        outcome = await outcome_of(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", then=flood))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome is TAKEN
    assert peak < 20 << 20
    assert sent < 50 << 20


async def test_a_body_that_unpacks_to_gigabytes_stays_packed() -> None:
    assert await outcome_of(answering(200, b"\x1f\x8b" + b"\0" * 50, content_encoding="gzip")) is TAKEN


async def test_a_redirect_is_not_followed_and_the_secret_goes_nowhere_else() -> None:
    async with Receiver() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            outcome = await outcome_of(answering(status, b"", location=elsewhere.url))
            assert outcome.kind == "unanswered"
            assert "redirects are not followed" in outcome.reason
        assert elsewhere.connections == 0


async def test_headers_without_end_are_a_failure() -> None:
    outcome = await outcome_of(saying(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * (1 << 20) + b"\r\n"))
    assert outcome.kind == "unanswered"


@pytest.mark.parametrize("count", [1, 10_000])
async def test_what_is_no_http_is_a_failure_with_a_short_reason_on_one_line(count: int) -> None:
    """The reason used to have all that was read, and to search 256 KiB for our secrets held up the event loop."""
    outcome = await outcome_of(saying(b"SSH-2.0-OpenSSH_9.2" * count + b"\r\n", then=close))
    assert outcome.kind == "unanswered"
    assert "b'SSH-2.0-OpenSSH_9.2" in outcome.reason
    assert len(outcome.reason) < 300
    assert "\\n" not in outcome.reason


@pytest.mark.parametrize("retry_after", ["soon", "-1", "99999999999999999999", "Thu, 99 Foo 2026", "1\t2"])
async def test_a_garbage_retry_after_is_survived(retry_after: str) -> None:
    outcome = await outcome_of(answering(429, b"", retry_after=retry_after))
    assert outcome.kind == "throttled"


async def test_an_error_whose_body_hangs_is_still_that_error() -> None:
    outcome = await outcome_of(saying(b"HTTP/1.1 422 X\r\ncontent-length: 100\r\n\r\n", b"half"))
    assert outcome.kind == "refused"


async def test_a_refused_connection_is_an_outage() -> None:
    port = free_port()
    async with destination(f"http://127.0.0.1:{port}/") as api:
        outcome = await api.send(MESSAGE)
    assert outcome.kind == "unreachable"
    assert outcome.reason == f"no connection to 127.0.0.1:{port}: Connection refused"


async def test_a_name_that_does_not_resolve_is_an_outage() -> None:
    async with destination("http://nowhere.test/") as api:
        assert (await api.send(MESSAGE)).kind == "unreachable"


async def test_a_public_address_behind_a_private_looking_name_gets_nothing_in_the_clear() -> None:
    """0x08080808 is how a resolver may write 8.8.8.8: nothing is sent there."""
    async with destination("http://0x08080808/") as api:
        outcome = await api.send(MESSAGE)
    assert outcome.kind == "unreachable"
    assert "8.8.8.8 is a public address" in outcome.reason


async def test_what_a_receiver_says_is_kept_without_our_secret() -> None:
    said = f'{{"error": "bad secret {SECRET}",\n"nul": "\0"}}'.encode()
    outcome = await outcome_of(answering(422, said))
    assert outcome.detail == r'{"error": "bad secret ***",\n"nul": "\x00"}'


async def test_the_end_of_a_long_body_is_cut_off() -> None:
    outcome = await outcome_of(answering(500, b"x" * 5000))
    assert outcome.detail == "x" * 500


# -------------------------------------------------------------------------- TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_side(issuer: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issuer.issue_cert(name).configure_cert(context)
    return context


async def test_a_certificate_of_an_authority_that_we_were_told_of_is_good(authority: trustme.CA, ca_file: Path) -> None:
    async with Receiver(tls=server_side(authority)) as receiver, destination(receiver.url, ca_file=ca_file) as api:
        assert await api.send(MESSAGE) is TAKEN


async def test_no_secret_goes_to_a_server_with_the_certificate_of_another_host(ca_file: Path) -> None:
    async with (
        Receiver(tls=server_side(trustme.CA())) as receiver,
        destination(receiver.url, ca_file=ca_file) as api,
    ):
        outcome = await api.send(MESSAGE)
        assert receiver.requests == []
    assert outcome.kind == "unreachable"
    assert outcome.reason.startswith("TLS: ")


async def test_no_secret_goes_to_a_server_whose_certificate_is_for_another_name(
    authority: trustme.CA, ca_file: Path
) -> None:
    tls = server_side(authority, "elsewhere.test")
    async with Receiver(tls=tls) as receiver, destination(receiver.url, ca_file=ca_file) as api:
        assert (await api.send(MESSAGE)).kind == "unreachable"
        assert receiver.requests == []


async def test_a_client_certificate_is_shown(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    tls = server_side(authority)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    certificate = tmp_path / "client.pem"
    authority.issue_cert("relay").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    async with Receiver(tls=tls) as receiver:
        async with destination(receiver.url, ca_file=ca_file, client_cert_file=certificate) as api:
            assert await api.send(MESSAGE) is TAKEN
        async with destination(receiver.url, ca_file=ca_file) as api:
            assert (await api.send(MESSAGE)).kind in ("unreachable", "unanswered")


# ---------------------------------------------------------------------- proxies


async def test_a_proxy_from_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as proxy, Receiver() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with destination(receiver.url) as api:
            assert await api.send(MESSAGE) is TAKEN
        assert (proxy.connections, receiver.connections) == (0, 1)


async def test_a_configured_proxy_is_used_with_its_password() -> None:
    async with Receiver() as proxy:
        through = f"http://user:proxy-password@127.0.0.1:{proxy.port}"
        async with destination("http://api.internal/x", proxy=through) as api:
            assert await api.send(MESSAGE) is TAKEN
        assert proxy.request.target == "http://api.internal/x"
        assert proxy.request.header("proxy-authorization") == "Basic dXNlcjpwcm94eS1wYXNzd29yZA=="


# --------------------------------------------------------------------- rotation


class Guarded:
    """Takes one secret at a time."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        right = request.header("x-internal-secret") == self.secret
        await answering(200 if right else 401)(request, writer)


async def test_after_a_401_the_previous_secret_is_tried_once_and_remembered() -> None:
    async with Receiver(Guarded("old")) as receiver, destination(receiver.url, secret_previous="old") as api:
        assert await api.send(MESSAGE) is TAKEN
        assert await api.send(MESSAGE) is TAKEN
        assert [r.header("x-internal-secret") for r in receiver.requests] == [SECRET, "old", "old"]


async def test_when_the_receiver_takes_the_new_secret_the_sender_goes_over_to_it() -> None:
    guard = Guarded("old")
    async with Receiver(guard) as receiver, destination(receiver.url, secret_previous="old") as api:
        await api.send(MESSAGE)
        guard.secret = SECRET
        assert await api.send(MESSAGE) is TAKEN
        assert await api.send(MESSAGE) is TAKEN
        assert [r.header("x-internal-secret") for r in receiver.requests] == [SECRET, "old", "old", SECRET, SECRET]


async def test_when_neither_secret_is_taken_the_destination_is_at_fault() -> None:
    async with Receiver(Guarded("other")) as receiver, destination(receiver.url, secret_previous="old") as api:
        outcome = await api.send(MESSAGE)
        assert len(receiver.requests) == 2
    assert outcome.kind == "unreachable"
    assert "does not accept our secret" in outcome.reason


async def test_a_sender_of_one_secret_asks_once() -> None:
    async with Receiver(Guarded("other")) as receiver, destination(receiver.url) as api:
        assert (await api.send(MESSAGE)).kind == "unreachable"
        assert len(receiver.requests) == 1


async def test_connections_are_kept_and_never_more_than_the_concurrency() -> None:
    async with Receiver() as receiver, destination(receiver.url, concurrency=3) as api:
        assert set(await asyncio.gather(*(api.send(MESSAGE) for _ in range(12)))) == {TAKEN}
        assert receiver.connections == 3
