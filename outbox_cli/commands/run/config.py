"""``outbox config``: show and check the settings, with the origin of each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from outbox_cli.terminal.commands import RUN, examples, group
from outbox_cli.terminal.output import Json, print_json, say, stdout, table
from outbox_cli.terminal.settings import put_current_directory_on_path

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from relay.observe.logging import Masking
    from relay.settings import DestinationSettings, Settings

config = group("config", RUN, "Show and check the settings.")


@config.command(epilog=examples("outbox config show", "OUTBOX_LEASE_S=30s outbox config show --json"))
def show(as_json: Json = False) -> None:
    """Show every setting with its value and origin. Secrets are masked."""
    from relay.observe.logging import Masking
    from relay.settings import load

    settings = load()
    masking = Masking(settings.secrets())
    written = _written(settings)
    values = as_written(_values(settings), written)
    serve = as_written(settings.serve.model_dump(mode="json", exclude_none=True), written.get("serve"))
    destinations = {
        name: as_written(_destination(found, masking), written.get("destinations", {}).get(name))
        for name, found in settings.destinations.items()
    }
    if as_json:
        print_json({**values, "serve": serve, "destinations": destinations})
        return
    console = stdout()
    rows = ((name, _shown(value), settings.origin(name)) for name, value in values.items())
    console.print(table("Setting", "Value", "From", rows=rows))
    _print_section(console, "serve", serve, settings.serve, settings.origin("serve"))
    for name, found in settings.destinations.items():
        _print_section(console, f"destinations.{name}", destinations[name], found, settings.origin_of_destination(name))


def _print_section(console: Console, name: str, values: dict[str, Any], found: BaseModel, origin: str) -> None:
    rows = ((key, _shown(value), _origin(key, found, origin)) for key, value in values.items())
    console.print()
    console.print(table(f"[{name}]", "Value", "From", rows=rows))


def _origin(key: str, found: BaseModel, section: str) -> str:
    from relay.destinations import registry

    if key not in found.model_fields_set:
        return "the default"
    implied = next((each for each in registry.implied() if each.variable == section), None)
    return section if implied is None else implied.origins.get(key, section)


@config.command(epilog=examples("outbox config check && outbox relay"))
def check() -> None:
    """Check the settings as a relay would, including listeners and certificates. Exits with 3 if a setting is wrong."""
    from relay.destinations import registry
    from relay.settings import load

    settings = load()
    put_current_directory_on_path()
    for name, destination in settings.destinations.items():
        registry.check(name, destination)
        is_default = settings.origin_of_destination(name) == "the default"
        why = "; it is the default, because no destination is configured" if is_default else ""
        say(f"destination {name}: {destination.kind}, wants {', '.join(destination.events)}{why}")
    settings.serve.check_handler()
    for name, destination in settings.destinations.items():
        for warning in registry.kind(destination.kind).warnings(destination, settings.origin_of_destination(name)):
            say(f"warning: destination {name} {warning}")
    for variable, reason in settings.ignored.items():
        say(f"warning: {variable} is set, but has no effect: {reason}")
    say(f"the settings are valid; the database is {settings.database}")


def _values(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump(mode="json", exclude={"destinations", "serve", "database_url"})
    return {"database_url": str(settings.database), **values}


def _destination(settings: DestinationSettings, masking: Masking) -> dict[str, Any]:
    dumped = settings.model_dump(mode="json", exclude_none=True)
    return {key: masking.masked(value) if isinstance(value, str) else value for key, value in dumped.items()}


def _written(settings: Settings) -> dict[str, Any]:
    """Return the values in the settings file that no flag or variable overrides."""
    from pathlib import Path

    from relay.settings import file

    path = file.find(os.environ, Path.cwd())
    if path is None:
        return {}
    content = {"schema_name" if key == "schema" else key: value for key, value in file.written(path).items()}
    return {key: value for key, value in content.items() if settings.origin(key) == str(path)}


def as_written(value: Any, written: Any) -> Any:
    """Return the value, or the file's text if that text contains a variable, whose value may be a secret."""
    match written:
        case str() if "${" in written:
            return written
        case dict() if isinstance(value, dict):
            return {key: as_written(item, written.get(key)) for key, item in value.items()}
        case list() if isinstance(value, list) and len(value) == len(written):
            return [as_written(item, each) for item, each in zip(value, written, strict=True)]
    return value


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value
