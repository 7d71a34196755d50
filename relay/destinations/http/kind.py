"""The kind ``http``: a POST for each message."""

from __future__ import annotations

from collections.abc import Sequence

from relay.destinations.contract import Destination
from relay.destinations.http.settings import HttpSettings
from relay.destinations.kind import Implied, Kind, Probed
from relay.destinations.policy import LookUp
from relay.platform.database import Database
from relay.platform.guide import COMPLETED, PATH

API_URL = "API_URL"
API_SECRET = "INTERNAL_API_SECRET"  # noqa: S105 (the name of a variable)


def _build(name: str, settings: HttpSettings, database: Database) -> Destination:
    from relay.destinations.http.destination import HttpDestination

    return HttpDestination(name, settings)


async def _probe(name: str, settings: HttpSettings) -> Probed:
    from relay.destinations.http.probe import probe

    return await probe(settings)


def _warnings(settings: HttpSettings, origin: str) -> Sequence[str]:
    if settings.secret is not None or settings.secret_headers:
        return ()
    # a secret belongs to one destination: only the destination that API_URL implies gets this variable implicitly
    how = f"set {API_SECRET}" if origin == API_URL else f'set secret_env = "{API_SECRET}"'
    return (f"sends no secret: {how} if the receiver wants one",)


def _api(look_up: LookUp) -> HttpSettings:
    secret_env = API_SECRET if look_up(API_SECRET) else None
    return HttpSettings(url=_endpoint(look_up(API_URL) or ""), events=[COMPLETED], secret_env=secret_env)


def _endpoint(base: str) -> str:
    """Return the guide's endpoint below a base URL, before its query."""
    before, mark, query = base.partition("?")
    return before.rstrip("/") + PATH + mark + query


KIND = Kind(
    name="http",
    settings=HttpSettings,
    build=_build,
    probe=_probe,
    warnings=_warnings,
    implied=Implied(
        "api",
        API_URL,
        _api,
        {"url": API_URL} | dict.fromkeys(("secret", "secret_env", "secret_previous"), API_SECRET),
    ),
)
