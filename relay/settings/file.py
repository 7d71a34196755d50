"""The settings file: ``./outbox.toml``, or what ``OUTBOX_CONFIG`` names."""

from __future__ import annotations

import tomllib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from outbox.errors import SettingsError
from relay.settings.environment import CONFIG, expand

DEFAULT_NAME = "outbox.toml"


def find(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file that applies, if there is one.

    Raises:
        SettingsError: ``OUTBOX_CONFIG`` names a file that is not there.
    """
    if chosen := environ.get(CONFIG):
        path = cwd / chosen
        if not path.is_file():
            raise SettingsError(f"{CONFIG} names {path}, which is not a file")
        return path
    path = cwd / DEFAULT_NAME
    return path if path.is_file() else None


def read(path: Path, environ: Mapping[str, str], *, skip: Container[str] = ()) -> dict[str, Any]:
    """The file's content, with ``${VAR}`` filled in, and without the tables to skip.

    Raises:
        SettingsError: It cannot be read, is not TOML, or uses a variable that is not set.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    return {key: _expanded(value, environ, f"{path}: {key}") for key, value in content.items() if key not in skip}


def mentions(path: Path, variable: str) -> bool:
    """Whether a file has to do with a variable: takes its value, or names it."""
    try:
        return variable in path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False


def _expanded(value: Any, environ: Mapping[str, str], where: str) -> Any:
    match value:
        case str():
            try:
                return expand(value, environ)
            except SettingsError as error:
                raise SettingsError(f"{where}: {error}") from None
        case dict():
            return {key: _expanded(item, environ, f"{where}.{key}") for key, item in value.items()}
        case list():
            return [_expanded(item, environ, where) for item in value]
    return value
