"""Load settings from flags, environment, file and defaults, in this order; the guide's variables add destinations."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from outbox.errors import SettingsError
from relay.destinations import registry
from relay.settings import environment, file
from relay.settings.model import DestinationSettings, Settings
from relay.settings.problems import settings_error

Made = TypeVar("Made")
NO_OVERRIDES: Mapping[str, object] = MappingProxyType({})


def load(
    overrides: Mapping[str, object] = NO_OVERRIDES,
    *,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    destinations: bool = True,
) -> Settings:
    """Return the settings that apply here.

    Args:
        overrides: The values of the command line, by field; ``None`` counts as not given.
        environ: The environment.
        cwd: The directory of ``outbox.toml``; default: the current directory.
        destinations: ``False`` leaves them out, for commands that need no destinations and run without secrets.

    Raises:
        SettingsError: A setting is wrong. The text names it, where it is set, and what would be right.
    """
    skip = () if destinations else ("destinations",)
    values, origins = _layers(overrides, environ, cwd or Path.cwd(), skip)
    if destinations and "destinations" not in values:
        values["destinations"] = implicit_destinations(environ)
    settings = _guarded(lambda: Settings.model_validate(values), origins, values.get("destinations"))
    settings = settings.model_copy(update={"destinations": _resolved(settings, environ)})
    settings._origins.update(origins)
    settings._ignored.update(_ignored(origins.get("destinations"), environ))
    return settings


def implicit_destinations(environ: Mapping[str, str]) -> dict[str, DestinationSettings]:
    """Return the destinations that variables such as ``API_URL`` define; if there are none, the default destination."""

    def look_up(variable: str) -> str | None:
        return environment.look_up(variable, environ)

    found: dict[str, DestinationSettings] = {}
    for each in registry.implied():
        if look_up(each.variable) if each.variable else not found:
            found[each.name] = _guarded(partial(each.make, look_up), each.origins)
    return found


def _ignored(path: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that do not define a destination, because a file names the destinations: variable → why."""
    if path is None:
        return {}
    set_here = [each.variable for each in registry.implied() if each.variable and environ.get(each.variable)]
    return {name: f"{path} names the destinations" for name in set_here if not file.mentions(Path(path), name)}


def _layers(
    overrides: Mapping[str, object], environ: Mapping[str, str], cwd: Path, skip: Container[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values by field, and the origin of each."""
    from_environment = environment.fields(environ)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if path := file.find(environ, cwd):
        values = file.read(path, environ, skip=skip)
        if "schema" in values:
            values["schema_name"] = values.pop("schema")
        origins = dict.fromkeys(values, str(path))
    for field, (name, value) in from_environment.items():
        values[field], origins[field] = value, name
    for field, given in overrides.items():
        if given is not None:
            values[field], origins[field] = given, f"--{field.removesuffix('_s').replace('_', '-')}"
    return values, origins


def _resolved(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the destinations with the values of the variables that they name."""
    found = {}
    for name, destination in settings.destinations.items():
        try:
            found[name] = destination.resolved(lambda variable: environment.look_up(variable, environ))
        except ValueError as error:
            raise SettingsError(f"destination {name}: {error}") from None
    return found


def _guarded(make: Callable[[], Made], origins: Mapping[str, str], destinations: object = None) -> Made:
    try:
        return make()
    except ValidationError as error:
        raise settings_error(error, lambda field: origins.get(field, field), destinations) from None
