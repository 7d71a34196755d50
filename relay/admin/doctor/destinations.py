"""Check the configured destinations: contradictory times, and servers that may lose or duplicate taken messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence

from outbox.errors import SettingsError
from relay.destinations.kind import Risk
from relay.destinations.policy import DestinationPolicy
from relay.destinations.registry import needing_its_library
from relay.observe.errors import in_words
from relay.observe.logging import one_line, redacted
from relay.platform.finding import Finding, note, ok
from relay.settings import Settings

TIMEOUT_S = 10.0


def configured(settings: Settings) -> list[Finding]:
    """Return the findings for each configured destination: in its settings, and at its server."""
    return [
        found
        for name, each in settings.destinations.items()
        for found in (*_expiry(name, each, settings.lease_s), *_at(name, each))
    ]


def _expiry(name: str, destination: DestinationPolicy, lease_s: float) -> Iterator[Finding]:
    """Compare the time after which messages expire with normal waiting times."""
    expires_in = destination.expires_in
    if expires_in is None:
        return
    check, what = f"destination {name}", f"messages expire after {expires_in:g} s (expires_in)"
    if expires_in <= destination.backoff_s:
        yield note(
            check,
            f"{what}, and the wait before the first retry may be as long as backoff_s ({destination.backoff_s:g} s)",
            "many messages that fail once expire before they are tried again",
            "raise expires_in, or lower backoff_s",
        )
    if expires_in <= lease_s:
        yield note(
            check,
            f"{what}, and a relay that is cut off keeps its shards for a lease ({lease_s:g} s)",
            "messages that wait for that long expire",
            "raise expires_in, or lower lease_s",
        )


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
    except Exception as error:  # any error of the network or the server is a finding
        reason = one_line(redacted(in_words(error)))
        do = f"`outbox destinations test {name}`"
        yield note(check, f"it could not be asked: {reason}", "what it may lose is unknown", do)
    else:
        for risk in found:
            yield note(check, risk.what, risk.why, risk.do)
        if not found:
            yield ok(check, "no risk found")
