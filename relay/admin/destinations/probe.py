"""Test whether a destination can be reached, without sending a message."""

from __future__ import annotations

import asyncio

from relay.destinations.kind import Probed
from relay.destinations.registry import build, needing_its_library
from relay.observe.errors import in_words
from relay.observe.text import one_line, redacted
from relay.settings import Settings

TIMEOUT_S = 10.0


async def probe(name: str, settings: Settings) -> Probed:
    """Test one destination, with the settings of this process.

    Raises:
        SettingsError: It cannot work with these settings.
    """
    destination = settings.destinations[name]
    await build(name, destination, settings.database).close()
    with needing_its_library(name, destination.kind) as kind:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await kind.probe(name, destination)
        except TimeoutError:
            return Probed(False, f"no answer within {TIMEOUT_S:g} s", "the connection")
        except Exception as error:
            # Any error of the network, TLS or the broker is the result of the test.
            return Probed(False, one_line(redacted(in_words(error))), "the connection")
