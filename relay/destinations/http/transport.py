"""Send httpx's requests over one aiohttp session, without the work that only a general client needs.

`httpx_aiohttp.AiohttpTransport` evaluates each request's URL, headers, timeouts and proxy. Our requests have one target
and finished headers and bodies, and the caller keeps the deadline. Leaving that work out saves a third of the time of a
delivery (docs/decisions/0008-http-client.md has the numbers).
"""

from __future__ import annotations

import ssl

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from multidict import CIMultiDict
from yarl import URL

NO_TIMEOUT = aiohttp.ClientTimeout()
EXTENSIONS = {"http_version": b"HTTP/1.1"}


class Body(httpx.AsyncByteStream):
    """The body of an answer, read only as far as it is needed.

    Args:
        response: The answer.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def start(self, limit: int) -> tuple[bytes, bool]:
        """Return at most `limit` of its first bytes, and whether it broke off before that."""
        content = self._response.content
        found = b""
        try:
            while len(found) < limit and not content.at_eof():
                found += await content.read(limit - len(found))
        except aiohttp.ClientError:
            return found, True
        return found, False

    async def aclose(self) -> None:
        """Keep the connection if the whole body was read, else close it."""
        self._response.release()


class Transport(AiohttpTransport):
    """POSTs to one URL through one session.

    Args:
        url: The target of every request.
        session: The session to use.
        tls: The TLS settings of the session.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession, *, tls: ssl.SSLContext | None) -> None:
        super().__init__(client=session, verify=tls if tls is not None else True)
        self._url = URL(url)
        self._session = session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make one exchange, up to the answer's body.

        Raises:
            aiohttp.ClientError: There was no answer.
        """
        assert isinstance(request.stream, httpx.ByteStream)
        headers = CIMultiDict([(name.decode(), value.decode()) for name, value in request.headers.raw])
        response = await self._session.request(
            request.method,
            self._url,
            headers=headers,
            data=request.read(),
            allow_redirects=False,
            timeout=NO_TIMEOUT,
        )
        return httpx.Response(
            response.status,
            headers=response.raw_headers if response.status >= 300 else None,  # the headers of a success tell nothing
            stream=Body(response),
            request=request,
            extensions=EXTENSIONS,
        )
