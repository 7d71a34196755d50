"""The kind ``listener``: a Python callable in this process."""

from __future__ import annotations

from collections.abc import Sequence

from relay.databases.database import Database
from relay.databases.rights import BASELINE, Right
from relay.destinations.contract import Destination
from relay.destinations.kind import Implied, Kind, Probed
from relay.destinations.listener.settings import ListenerSettings
from relay.destinations.policy import LookUp
from relay.platform.guide import BASELINE_LISTENER, COMPLETED


def _build(name: str, settings: ListenerSettings, database: Database) -> Destination:
    from relay.destinations.listener.destination import ListenerDestination

    return ListenerDestination(
        name,
        settings.listener,
        database=database,
        concurrency=settings.concurrency,
        timeout_s=settings.timeout_s,
    )


async def _probe(name: str, settings: ListenerSettings) -> Probed:
    """Report that the destination was built; nothing more can be tested."""
    return Probed(True, "the listener exists", "it can be imported, and has a listener's parameters")


def _needs(settings: ListenerSettings) -> Sequence[Right]:
    return BASELINE if settings.listener == BASELINE_LISTENER else ()


def _baseline(look_up: LookUp) -> ListenerSettings:
    return ListenerSettings(listener=BASELINE_LISTENER, events=[COMPLETED])


KIND = Kind(
    name="listener",
    settings=ListenerSettings,
    build=_build,
    probe=_probe,
    needs=_needs,
    implied=Implied("baseline", None, _baseline),
)
