"""Test whether an HTTP server answers, without a message and without a secret."""

from __future__ import annotations

import aiohttp

from relay.destinations.http.pool import without_answer
from relay.destinations.http.settings import HttpSettings
from relay.destinations.kind import Probed
from relay.observe.logging import one_line, redacted


async def probe(settings: HttpSettings) -> Probed:
    """Send a HEAD request; if the answer to it is malformed, send OPTIONS."""
    method = "a HEAD"
    try:
        try:
            status = await _status("HEAD", settings)
        except aiohttp.ClientResponseError:
            # Some servers answer with a body, which HTTP forbids. OPTIONS changes nothing either, and may have one.
            status = await _status("OPTIONS", settings)
            method = "an OPTIONS, after a malformed answer to a HEAD"
    except aiohttp.ClientError as error:
        # In the wording of a relay's log, so that the same text is found there.
        return Probed(False, one_line(redacted(without_answer(error).reason)), "the connection")
    return Probed(
        status < 500 and status != 410,
        f"it answered {status} to {method}",
        "name, connection, TLS and HTTP, without a secret; 404 or 405 is usual for a URL that only accepts POST; "
        "whether the secret is right shows with the first message",
    )


async def _status(method: str, settings: HttpSettings) -> int:
    connector = aiohttp.TCPConnector(ssl=settings.tls_context() or True)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.request(method, settings.url, allow_redirects=False, proxy=settings.proxy) as response,
    ):
        return response.status
