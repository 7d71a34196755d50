"""The kind ``http``: a POST for each message."""

from __future__ import annotations

from collections.abc import Sequence

from relay.destinations.http.settings import HttpSettings
from relay.destinations.kind import Implied, Kind, late, of_class
from relay.destinations.policy import LookUp
from relay.platform.guide import COMPLETED, PATH

API_URL = "API_URL"
API_SECRET = "INTERNAL_API_SECRET"  # noqa: S105 (the name of a variable)


def _warnings(settings: HttpSettings, origin: str) -> Sequence[str]:
    if settings.secret is not None or settings.secret_headers:
        return ()
    # a secret belongs to one destination: only the destination that API_URL implies uses this variable by default
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
    build=of_class(f"{__package__}.destination:HttpDestination"),
    probe=late(f"{__package__}.probe:probe"),
    warnings=_warnings,
    implied=Implied(
        "api",
        API_URL,
        _api,
        {"url": API_URL} | dict.fromkeys(("secret", "secret_env", "secret_previous"), API_SECRET),
    ),
)
