"""The settings of a command, its database, and the directory of its listeners.

All imports are inside the functions, because a command's help needs no settings.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlalchemy as sa

    from relay.settings import Settings


def operator_settings() -> Settings:
    """Return the settings of a command that delivers nothing: it also runs without the destinations' secrets."""
    from relay.settings import load

    return load(destinations=False)


def reading() -> AbstractContextManager[sa.Connection]:
    """Return a context with a connection to an outbox that can be used, to read from it in one snapshot."""
    from relay.admin.access.opening import opened_snapshot

    return opened_snapshot(operator_settings())


def changing() -> AbstractContextManager[sa.Engine]:
    """Return a context with an engine for an outbox that can be used, to change it."""
    from relay.admin.access.opening import opened

    return opened(operator_settings())


def start_logging(settings: Settings, *further: str, level: str | None = None) -> None:
    """Log as the settings say.

    Args:
        settings: The settings; their secrets never appear.
        further: Other secrets.
        level: A level instead of that of the settings.
    """
    from relay.observe.logging import configure

    secrets = {*settings.secrets(), *further}
    configure(log_format=settings.log_format, level=level or settings.log_level, secrets=secrets)


def health_port(settings: Settings) -> int:
    """Return the port of health pages that are served only on request; the default port is used only by a relay."""
    return 0 if settings.origin("health_port") == "the default" else settings.health_port


def report_ignored(settings: Settings) -> None:
    """Log the variables that are set and have no effect here."""
    import structlog

    for variable, reason in settings.ignored.items():
        structlog.get_logger("relay").warning("variable_ignored", variable=variable, reason=reason)


def put_current_directory_on_path() -> None:
    """Make listeners in the current directory importable.

    The directory comes last on the path: a file there must not replace a module of ours or of the standard library.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
