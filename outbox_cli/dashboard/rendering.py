"""Render data to HTML: Jinja2 with everything escaped, and a few filters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from relay.admin.messages.dead import DeadFilter
from relay.observe.text import one_line, redacted
from relay.platform.wording import counted, duration, ranges, utc

HERE = Path(__file__).parent
STATIC = HERE / "static"


def environment() -> Environment:
    """Return the environment for all pages."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
        auto_reload=False,  # an upgrade replaces files under a running dashboard, whose pages must still fit its code
    )
    filters: tuple[Callable[..., Any], ...] = (
        ago, at, compact, counted, duration, lasting, latency, number, pretty, ranges, rate, said,
    )  # fmt: skip
    made.filters.update(multiline=Multiline)
    made.filters.update({each.__name__: each for each in filters})
    made.globals.update(without_state=without_state, filters_of=filters_of)
    return made


def without_state(text: str) -> str:
    """Return a search without its state, for the links that add another state."""
    return " ".join(word for word in text.split(" ") if not word.startswith("state:")).strip()


def filters_of(which: DeadFilter) -> str:
    """Return the filters of dead letters as a query string."""
    given = {
        "destination": which.destination,
        "type": which.type_,
        "because": which.reason,
        "cause": which.fingerprint,
    }
    return urlencode({name: value for name, value in given.items() if value})


class Multiline(str):
    """Text whose line breaks are kept."""


def shown(value: object) -> object:
    """Return a value as text, without the passwords of URLs, and with control characters escaped."""
    match value:
        case Markup():
            return value
        case Multiline():
            return "\n".join(one_line(redacted(line)) for line in value.split("\n"))
        case str():
            return one_line(redacted(value)) if not value.isspace() else value
        case None:
            return "–"
        case datetime():
            return utc(value)
        case bool():
            return "yes" if value else "no"
        case int():
            return number(value)
    return value


def number(value: float) -> str:
    """Return ``1,234``."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def compact(value: float) -> str:
    """Return ``1,234``, ``12.3 k``, ``1.2 M``, for tiles."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scaled = value / (1000 if unit == "k" else size)
            return f"{scaled:,.1f} {unit}" if scaled < 100 else f"{scaled:,.0f} {unit}"
    return number(value)


def rate(value: float | None) -> str:
    """Return a rate per second for people."""
    if value is None:
        return "–"
    return "0" if not value else f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else compact(value)


def at(value: datetime | None) -> Markup:
    """Return an instant, in UTC."""
    if value is None:
        return Markup("–")
    return Markup('<time datetime="{}">{}</time>').format(value.astimezone(UTC).isoformat(), utc(value))


def ago(value: datetime | None, now: datetime) -> Markup:
    """Return how long ago an instant was, with the instant as a tooltip."""
    if value is None:
        return Markup("–")
    seconds = (now - value).total_seconds()
    return _time(
        value, f"{duration(seconds)} ago" if seconds >= 1 else "now" if seconds > -1 else f"in {duration(-seconds)}"
    )


def lasting(value: datetime | None, now: datetime) -> Markup:
    """Return how long ago something began that still lasts, with the instant as a tooltip."""
    return Markup("–") if value is None else _time(value, duration(max((now - value).total_seconds(), 0)))


def _time(value: datetime, text: str) -> Markup:
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        value.astimezone(UTC).isoformat(), utc(value), text
    )


def latency(seconds: float) -> str:
    """Return a short time: ``4 ms``, ``0.4 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def said(text: object) -> Markup:
    """Return one of our sentences, with its commands formatted as code."""
    parts = str(shown(str(text or ""))).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else Markup("{}").format(part)
        for index, part in enumerate(parts)
    )


def pretty(value: object) -> Multiline:
    """Return JSON, formatted for people."""
    return Multiline(json.dumps(value, ensure_ascii=False, indent=2, default=str))


@cache
def version() -> str:
    """Return a version of the static files that differs between releases: browsers keep the files for a year."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
