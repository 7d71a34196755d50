"""One build of the command line for all commands of a process: a build takes longer than a short command."""

from typing import Any

import typer
import typer.main

_build = typer.main.get_command
_built: dict[tuple[int, ...], Any] = {}


def get_command(app: typer.Typer) -> Any:
    """Return what Typer's own function returns; build it again only after a module has added commands."""
    added = (id(app), len(app.registered_commands), len(app.registered_groups))
    if added not in _built:
        _built[added] = _build(app)
    return _built[added]


def install() -> None:
    """Have every command of this process use `get_command`."""
    typer.main.get_command = get_command
