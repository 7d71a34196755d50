"""The settings file: ``./outbox.toml``, or the file that ``OUTBOX_CONFIG`` names."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from outbox.errors import SettingsError
from relay.observe.text import hide
from relay.settings.environment import CONFIG, expand

DEFAULT_NAME = "outbox.toml"
_AFTER_HOST = re.compile(r"^[^/?#]*[/?#]?")


def find(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the file that applies, or ``None``.

    Raises:
        SettingsError: ``OUTBOX_CONFIG`` names a file that does not exist, or the file in the current directory belongs
            to another user.
    """
    if chosen := environ.get(CONFIG):
        path = cwd / chosen
        if not path.is_file():
            raise SettingsError(f"{CONFIG} names {path}, which is not a file")
        return path
    path = cwd / DEFAULT_NAME
    if not path.is_file():
        return None
    _refuse_another_users(path)
    return path


def _refuse_another_users(path: Path) -> None:
    """Refuse a file that another user put here: it could send our secrets to foreign hosts, and run foreign code."""
    if not hasattr(os, "geteuid"):
        return
    owner = path.stat().st_uid
    if owner not in (os.geteuid(), 0):
        raise SettingsError(
            f"{path} belongs to another user (uid {owner}), who could have your secrets sent anywhere: if you trust "
            f"it, name it with {CONFIG}={path}, or change its owner; else run outbox in another directory"
        )


def written(path: Path) -> dict[str, Any]:
    """Return the file's content with each ``${VAR}`` unchanged."""
    return tomllib.loads(path.read_text(encoding="utf-8-sig"))


def read(path: Path, environ: Mapping[str, str], *, skip: Container[str] = ()) -> dict[str, Any]:
    """Return the file's content with each ``${VAR}`` replaced, and without the tables in ``skip``.

    Raises:
        SettingsError: The file cannot be read, is not TOML, or uses a variable that is not set.
    """
    try:
        content = written(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    return {key: _expanded(value, environ, f"{path}: {key}") for key, value in content.items() if key not in skip}


def mentions(path: Path, variable: str) -> bool:
    """Return whether a file uses the value of a variable, or names it."""
    try:
        return variable in path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False


def _expanded(value: Any, environ: Mapping[str, str], where: str) -> Any:
    match value:
        case str():
            try:
                expanded, used = expand(value, environ)
            except SettingsError as error:
                raise SettingsError(f"{where}: {error}") from None
            hide(_secret_parts(expanded, used))
            return expanded
        case dict():
            return {key: _expanded(item, environ, f"{where}.{key}") for key, item in value.items()}
        case list():
            return [_expanded(item, environ, where) for item in value]
    return value


def _secret_parts(text: str, used: Iterable[str]) -> Iterator[str]:
    """Yield the parts of a composed URL that may be secret: all values except its scheme, host and port."""
    if "://" in text:
        shown = _behind_the_host(text)
        parts = (_behind_the_host(value) if "://" in value else value for value in used)
        yield from (part for part in parts if part and part in shown)


def _behind_the_host(url: str) -> str:
    return _AFTER_HOST.split(url.partition("://")[2], maxsplit=1)[-1]
