"""What pydantic finds wrong, as a user can use it: where it stands, what is wrong, which name was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from outbox.errors import SettingsError
from relay.settings.environment import instead
from relay.settings.model import KINDS, Settings
from relay.settings.serve import ServeSettings

Origin = Callable[[str], str]


def settings_error(error: ValidationError, origin: Origin) -> SettingsError:
    """All that is wrong, one line each; no value is repeated, for it may be a secret.

    Args:
        error: What pydantic found.
        origin: Says where a top-level setting was taken from.
    """
    lines = [_line(problem, origin) for problem in error.errors(include_url=False, include_input=False)]
    return SettingsError("\n".join(lines))


def _line(problem: Any, origin: Origin) -> str:
    location = [str(part) for part in problem["loc"]]
    if not location:
        return _message(problem)
    where = _where(location, origin)
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a setting: {instead(location[-1], _known(location))}"
    return f"{where}: {_message(problem)}"


def _message(problem: Any) -> str:
    match problem["type"]:
        case "missing":
            return "this is needed"
        case "union_tag_not_found":
            return 'kind is needed: "listener", "http" or "rabbitmq"'
        case "union_tag_invalid":
            return 'there is no such kind: use "listener", "http" or "rabbitmq"'
        case "list_type":
            return 'write a list, in brackets: ["…"], also of one'
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return message[:1].lower() + message[1:]


def _where(location: list[str], origin: Origin) -> str:
    field, path = location[0], location
    if field == "destinations" and len(location) > 2 and location[2] in KINDS:
        path = [*location[:2], *location[3:]]  # pydantic inserts the kind, which stands nowhere in the file
    source = origin(field)
    return source if len(path) == 1 and not source.endswith(".toml") else f"{source}: {'.'.join(path)}"


def _known(location: list[str]) -> Iterable[str]:
    if location[0] == "destinations" and len(location) > 2:
        return KINDS[location[2]].model_fields
    if location[0] == "serve" and len(location) > 1:
        return ServeSettings.model_fields
    return {"schema" if name == "schema_name" else name for name in Settings.model_fields}
