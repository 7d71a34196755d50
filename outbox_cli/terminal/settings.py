"""The settings of a command, and the directory of its listeners."""

from __future__ import annotations

import sys
from pathlib import Path

from relay.settings import Settings, load


def operator_settings(**overrides: object) -> Settings:
    """Return the settings of a command that delivers nothing: it also runs without the destinations' secrets."""
    return load(overrides, destinations=False)


def report_ignored(settings: Settings) -> None:
    """Log the variables that are set and have no effect here."""
    import structlog

    for variable, reason in settings.ignored.items():
        structlog.get_logger("relay").warning("variable_ignored", variable=variable, reason=reason)


def put_current_directory_on_path() -> None:
    """Make listeners in the current directory importable.

    It comes last on the path: a file there must not replace a module of ours or of the standard library.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
