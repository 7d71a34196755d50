"""What a command is told, and where it looks for listeners."""

from __future__ import annotations

import sys
from pathlib import Path

from relay.settings import Settings, load


def operator_settings(**overrides: object) -> Settings:
    """The settings of a command that delivers nothing: it runs where the destinations' secrets are not set."""
    return load(overrides, destinations=False)


def report_ignored(settings: Settings) -> None:
    """Log the variables that are set and mean nothing here."""
    import structlog

    for variable, reason in settings.ignored.items():
        structlog.get_logger("relay").warning("variable_ignored", variable=variable, reason=reason)


def put_current_directory_on_path() -> None:
    """Make listeners in the current directory importable.

    At the end of the path: a file there called like a module of ours, or of the standard library, must not replace it.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
