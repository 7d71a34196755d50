"""What the other sides of the configured destinations may do with messages that they took."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence

from outbox.errors import SettingsError
from relay.admin.doctor.finding import Finding, note, ok
from relay.destinations.kind import Risk
from relay.destinations.policy import DestinationPolicy
from relay.destinations.registry import needing_its_library
from relay.observe.logging import one_line, redacted
from relay.settings import Settings

TIMEOUT_S = 10.0


def other_sides(settings: Settings) -> list[Finding]:
    """Return what is found at each destination that is configured here."""
    return [found for name, each in settings.destinations.items() for found in _at(name, each)]


async def _within_a_deadline(looking: Awaitable[Sequence[Risk]]) -> Sequence[Risk]:
    async with asyncio.timeout(TIMEOUT_S):
        return await looking


def _at(name: str, destination: DestinationPolicy) -> Iterator[Finding]:
    check = f"destination {name}"
    try:
        with needing_its_library(name, destination.kind) as kind:
            if kind.risks is None:
                return
            found = asyncio.run(_within_a_deadline(kind.risks(name, destination)))
    except SettingsError as error:
        yield note(check, str(error), "a relay that is configured like this does not start", "install it here")
    except Exception as error:  # any error of the network or the other side: it is what was asked for
        reason = one_line(redacted(f"{type(error).__name__}: {error}"))
        do = f"`outbox destinations test {name}`"
        yield note(check, f"it could not be asked: {reason}", "what it may lose is unknown", do)
    else:
        for risk in found:
            yield note(check, risk.what, risk.why, risk.do)
        if not found:
            yield ok(check, "nothing speaks against it")
