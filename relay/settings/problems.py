"""Translate pydantic's errors for users: where the fault is, what is wrong, and which name was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from outbox.errors import SettingsError
from relay.destinations import registry
from relay.settings.environment import instead
from relay.settings.model import Settings
from relay.settings.serve import ServeSettings

Origin = Callable[[str], str]


def settings_error(error: ValidationError, origin: Origin, destinations: object = None) -> SettingsError:
    """Return all faults, one line each; no value is repeated, because it may be a secret.

    Args:
        error: The error from pydantic.
        origin: Returns the origin of a top-level setting.
        destinations: The table of destinations as it was given, which contains the kind of each.
    """
    lines = [_line(problem, origin, destinations) for problem in error.errors(include_url=False, include_input=False)]
    return SettingsError("\n".join(lines))


def _line(problem: Any, origin: Origin, destinations: object) -> str:
    location = [str(part) for part in problem["loc"]]
    if not location:
        return _message(problem)
    where = _where(location, origin)
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a setting: {instead(location[-1], _known(location, destinations))}"
    return f"{where}: {_message(problem)}"


def _message(problem: Any) -> str:
    match problem["type"]:
        case "missing":
            return "this setting is required"
        case "string_type":
            return 'write text in quotes: "…"'
        case "too_short":
            return "the list is empty: name at least one"
        case "list_type":
            return 'write a list in brackets, even with one element: ["…"]'
        case "dict_type":
            return 'write a table, such as [destinations.NAME] or {name = "…"}'
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return message[:1].lower() + message[1:]


def _where(location: list[str], origin: Origin) -> str:
    source = origin(location[0])
    return source if len(location) == 1 and not source.endswith(".toml") else f"{source}: {'.'.join(location)}"


def _known(location: list[str], destinations: object) -> Iterable[str]:
    if location[0] == "destinations" and len(location) > 2 and isinstance(destinations, Mapping):
        return registry.kind(destinations[location[1]]["kind"]).settings.model_fields
    if location[0] == "serve" and len(location) > 1:
        return ServeSettings.model_fields
    return {"schema" if name == "schema_name" else name for name in Settings.model_fields}
