"""Environment variables: settings, secrets, and misspelled names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from outbox.errors import SettingsError
from relay.settings.model import Settings

PREFIX = "OUTBOX_"
CONFIG = "OUTBOX_CONFIG"
DATABASE_URLS = ("OUTBOX_DATABASE_URL", "DATABASE_URL")

FIELDS = {
    PREFIX + ("SCHEMA" if field == "schema_name" else field.upper()): field
    for field in Settings.model_fields
    if field not in ("destinations", "serve", "database_url")
}
# Secrets that are read when they are needed; each can also be given as a file.
SECRETS = (DATABASE_URLS[0], f"{PREFIX}DASHBOARD_TOKEN", f"{PREFIX}DASHBOARD_VIEWER_TOKEN")
KNOWN = {*FIELDS, CONFIG, *SECRETS, *(f"{name}_FILE" for name in SECRETS)}

# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_KUBERNETES = re.compile(r"\w*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_\w+)")
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")
_TEST_SUITE = "OUTBOX_TEST_"
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


def fields(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the settings in the environment: field → (variable, value). An empty variable counts as not set.

    Raises:
        SettingsError: A variable begins with ``OUTBOX_`` and is not a setting, or a secret is given twice.
    """
    check_names(environ)
    found = {
        field: (name, value)
        for name, field in FIELDS.items()
        if (value := environ.get(name, "").strip()) and not _KUBERNETES_PORT.match(value)
    }
    for name in DATABASE_URLS:
        if url := look_up(name, environ):
            return found | {"database_url": (name, url)}
    return found


def check_names(environ: Mapping[str, str]) -> None:
    """Refuse a variable with our prefix that is not a setting.

    Raises:
        SettingsError: The text names it, and the most similar setting.
    """
    for name in sorted(environ):
        if name.startswith(PREFIX) and not _is_known(name):
            raise SettingsError(f"{name} is not a setting: {instead(name, KNOWN)}")


def look_up(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the value of ``NAME``, or the stripped content of the file that ``NAME_FILE`` names.

    Raises:
        SettingsError: Both are set, or the file cannot be read.
    """
    value, path = (environ.get(each, "").strip() for each in (name, f"{name}_FILE"))
    if value and path:
        raise SettingsError(f"{name} and {name}_FILE are both set: unset one of them")
    return _read(f"{name}_FILE", path) if path else value or None


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, set[str]]:
    """Return ``text`` with each ``${VAR}`` replaced by its value, and these values.

    Raises:
        SettingsError: A variable is not set.
    """

    used: set[str] = set()

    def value(match: re.Match[str]) -> str:
        found = look_up(match[1], environ)
        if found is None:
            raise SettingsError(f"${{{match[1]}}} is used, but {match[1]} is not set")
        used.add(found)
        return found

    return _REFERENCE.sub(value, text), used


def instead(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar or that contains this one as words, or all of them."""
    spelled = {each.removeprefix(PREFIX): each for each in sorted(known)}  # without the prefix that all names share
    given = name.removeprefix(PREFIX)
    longer = [each for each in spelled if f"_{given}_" in f"_{each}_"]
    if close := difflib.get_close_matches(given, longer or spelled, n=1, cutoff=0.0 if longer else 0.6):
        return f"did you mean {spelled[close[0]]}?"
    return f"there are {', '.join(spelled.values())}"


def _is_known(name: str) -> bool:
    return name in KNOWN or name.startswith(_TEST_SUITE) or _KUBERNETES.fullmatch(name) is not None


def _read(name: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{name} names {path}, which cannot be read: {reason}") from None
    if not text:
        raise SettingsError(f"{name} names {path}, which is empty")
    return text
