"""Test whether an HTTP server answers, without a message and without a secret."""

from __future__ import annotations

import aiohttp

from relay.destinations.http.pool import without_answer
from relay.destinations.http.settings import HttpSettings
from relay.destinations.kind import Probed
from relay.observe.logging import one_line, redacted


async def probe(name: str, settings: HttpSettings) -> Probed:
    """Send an OPTIONS request. It changes nothing; unlike HEAD, every server answers it in a valid form."""
    connector = aiohttp.TCPConnector(ssl=settings.tls_context() or True)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.options(settings.url, allow_redirects=False, proxy=settings.proxy) as response,
        ):
            status = response.status
    except aiohttp.ClientError as error:
        # The wording of a relay's log, so that a search for this text finds the log line.
        return Probed(False, one_line(redacted(without_answer(error).reason)), "the connection")
    return Probed(
        status < 500 and status != 410,
        f"it answered {status} to OPTIONS",
        "name, connection, TLS and HTTP, without a secret; 404 or 405 is usual for a URL that only accepts POST; "
        "the first message will show whether the secret is right",
    )
