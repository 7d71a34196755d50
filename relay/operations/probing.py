"""Whether a destination can be reached, without sending a message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from relay.destinations import build
from relay.observe.logging import one_line, redacted
from relay.settings import HttpSettings, ListenerSettings, RabbitSettings, Settings

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Probed:
    """What came of it.

    Args:
        well: Whether anything speaks against it.
        said: What was found.
        checked: What that does and does not tell.
    """

    well: bool
    said: str
    checked: str


async def probe(name: str, settings: Settings) -> Probed:
    """Try one destination, as it is configured here.

    Raises:
        SettingsError: It cannot work as it is configured.
    """
    destination = settings.destinations[name]
    built = build(name, destination, settings)
    if isinstance(destination, ListenerSettings):
        await built.close()
        return Probed(True, "the listener is there", "it can be imported, and its parameters are those of a listener")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if isinstance(destination, HttpSettings):
                return await _http(destination)
            return await _rabbitmq(name, destination)
    except TimeoutError:
        return Probed(False, f"no answer within {TIMEOUT_S:g} s", "the connection")
    except Exception as error:
        # Whatever the network, TLS or the broker has to say: it is what was asked for.
        return Probed(False, one_line(redacted(f"{type(error).__name__}: {error}")), "the connection")


async def _http(settings: HttpSettings) -> Probed:
    import aiohttp

    from relay.destinations.http.pool import without_answer

    method = "a HEAD"
    try:
        try:
            status = await _status("HEAD", settings)
        except aiohttp.ClientResponseError:
            # Some servers send a body with it, which is none of HTTP's. OPTIONS changes nothing either, and may.
            status = await _status("OPTIONS", settings)
            method = "an OPTIONS, after a malformed answer to a HEAD"
    except aiohttp.ClientError as error:
        # In the words of a relay, so that what is read here is found again in its log.
        return Probed(False, one_line(redacted(without_answer(error).reason)), "the connection")
    return Probed(
        status < 500 and status != 410,
        f"it answered {status} to {method}",
        "name, connection, TLS and HTTP, without a secret; 404 or 405 is usual where only POST is known, and whether "
        "the secret is taken shows with the first message",
    )


async def _status(method: str, settings: HttpSettings) -> int:
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=settings.tls_context() or True)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.request(method, settings.url, allow_redirects=False, proxy=settings.proxy) as response,
    ):
        return response.status


async def _rabbitmq(name: str, settings: RabbitSettings) -> Probed:
    from relay.amqp import Broker

    connection = await Broker.of(settings, f"outbox probe: {name}").connect(TIMEOUT_S)
    try:
        channel = await connection.channel()
        if not settings.declare:
            await channel.get_exchange(settings.exchange, ensure=True)
    finally:
        await connection.close()
    what = "" if settings.declare else f", and the exchange {settings.exchange} is there"
    return Probed(
        True,
        f"the broker lets us in{what}",
        "name, connection, TLS, user, password, virtual host; whether a queue takes an event shows with the first one",
    )
