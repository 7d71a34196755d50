"""The connections to one receiver, and an exchange over them.

This uses httpx's types on the aiohttp transport, over a session of our own: see docs/decisions/0008-http-client.md.
Only the connections are kept between exchanges: no cookies, no credentials. Redirects are not followed, and no proxy is
taken from the environment, so a secret reaches only the configured origin.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from contextvars import ContextVar
from typing import Any

import aiohttp
import httpx

from relay.decide.outcome import Outcome, unanswered, unreachable
from relay.destinations.http.answer import Answer
from relay.destinations.http.settings import HttpSettings
from relay.destinations.http.transport import Body, Transport
from relay.destinations.sending.cloudevents import Header

BODY_LIMIT = 64 * 1024
UNREAD_BYTES = 16 * 1024  # of a connection: more would only prolong the turns of the event loop if a server floods us
ERROR_LENGTH = 200  # of an error's message, which shows all that was read of an invalid answer
DETAIL_TIMEOUT_S = 1.0  # to read the body of an answer whose status is sufficient
AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

# Collects the connections that are opened for the current exchange. If it stays empty, a kept connection was used.
_opened: ContextVar[list[Any]] = ContextVar("opened")


class Pool:
    """Connections to one URL's origin, as many as attempts at the same time, kept alive between exchanges.

    Args:
        settings: The URL to POST to, and how it may be reached.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._url = httpx.URL(settings.url)
        self._private_only = settings.must_stay_private
        tls = settings.tls_context()
        connector = aiohttp.TCPConnector(limit=settings.concurrency, ssl=tls or True, socket_factory=self._open)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            skip_auto_headers=AUTOMATIC,
            proxy=settings.proxy,
        )
        self._transport = Transport(str(self._url), self._session, tls=tls)

    async def close(self) -> None:
        await self._transport.aclose()

    async def post(self, body: bytes, headers: list[Header]) -> Answer | Outcome:
        """Make one exchange; return the answer, or the outcome if there is no answer. The caller sets deadlines.

        The other side may have closed a connection that was kept alive. Neither side is at fault then, so the exchange
        is repeated until it fails on a connection that was opened for it.
        """
        while True:
            opened: list[Any] = []
            _opened.set(opened)
            try:
                return await self._exchange(body, headers)
            except (aiohttp.ClientError, ValueError) as error:
                is_stale = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) and not opened
                if not is_stale or isinstance(error, aiohttp.ClientConnectorError):
                    return without_answer(error)

    async def _exchange(self, body: bytes, headers: list[Header]) -> Answer:
        request = httpx.Request("POST", self._url, headers=headers, stream=httpx.ByteStream(body))
        response = await self._transport.handle_async_request(request)
        try:
            read = _read if response.is_success else _read_a_while
            start, broke_off = await read(response)
        finally:
            await response.aclose()  # closes the connection if the body was not read completely
        return Answer(response.status_code, response.headers, start, broke_off)

    def _open(self, address: Any) -> socket.socket:
        family, type_, protocol, _, peer = address
        if self._private_only and ipaddress.ip_address(peer[0].partition("%")[0]).is_global:
            raise OSError(
                errno.EACCES,
                f"{peer[0]} is a public address: use https://, or set allow_plain to send there in the clear",
            )
        made = socket.socket(family, type_, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
        _opened.get([]).append(made)
        return made


async def _read(response: httpx.Response) -> tuple[bytes, str | None]:
    """Return the body's first 64 KiB and, if the rest is missing, the reason."""
    assert isinstance(response.stream, Body)
    start, is_broken = await response.stream.start(BODY_LIMIT)
    return start, "the connection was closed in the middle of its body" if is_broken else None


async def _read_a_while(response: httpx.Response) -> tuple[bytes, str | None]:
    try:
        async with asyncio.timeout(DETAIL_TIMEOUT_S):
            return await _read(response)
    except TimeoutError:
        return b"", "its body did not arrive"


def without_answer(error: BaseException) -> Outcome:
    """Return the outcome for an error, in a sentence that names host and port."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return unreachable(f"TLS: {error.certificate_error}")
        case aiohttp.ClientConnectorSSLError():
            return unreachable(f"TLS: {error.os_error}")
        case aiohttp.ClientConnectorDNSError():
            return unreachable(f"{error.host} cannot be resolved: {error.os_error.strerror or error.os_error}")
        case aiohttp.ClientConnectorError():
            return unreachable(f"no connection to {error.host}:{error.port}: {_in_words(error.os_error)}")
        case aiohttp.InvalidURL():
            return unreachable(f"the url cannot be used: {error.description or error}")
        case aiohttp.ClientHttpProxyError():
            return unreachable(f"the proxy answered {error.status}")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return unanswered("the connection was closed before an answer came")
        case aiohttp.ClientResponseError():
            return unanswered(f"the answer is not HTTP: {_beginning(error.message)}")
    return unanswered(f"no answer: {type(error).__name__}: {_beginning(str(error))}")


def _beginning(said: str) -> str:
    """Return the beginning of an error's message on one line: it shows the answer, marked with ^ on a line below."""
    return " ".join(said[:ERROR_LENGTH].split()).rstrip(" ^")


def _in_words(error: OSError) -> str:
    """Return the reason for an error; asyncio's own words would repeat the address."""
    words = str(error.strerror or error)
    return os.strerror(error.errno) if error.errno and words.startswith("Connect call failed") else words
