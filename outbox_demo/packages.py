"""Text that every machine with this package has: the long descriptions of installed Python packages, in Markdown."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from typing import Any

from outbox_demo.documents import Document
from outbox_demo.markup import from_markdown

MARKDOWN = "text/markdown"
LIMIT = 30
MAX_CHARACTERS = 200_000
ENOUGH = 600
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CHANGELOG = re.compile(
    r"^(?:change ?log|changes|release (?:notes|history)|history)\b.{0,40}$", re.IGNORECASE | re.MULTILINE
)


def installed_descriptions() -> list[Document]:
    """Return documents made of the descriptions of installed packages: at most `LIMIT`, the same ones each time.

    The packages with the longest descriptions are taken, not counting a pasted changelog. They are sorted by name.
    """
    longest = sorted(_descriptions().items(), key=lambda item: (-len(item[1][1]), item[0]))[: LIMIT * 2]
    documents = [_document(name, distribution, text) for name, (distribution, text) in longest]
    telling = sorted((d for d in documents if len(d.text) >= ENOUGH), key=lambda d: (-len(d.text), d.id))
    return sorted(telling[:LIMIT], key=lambda document: document.id)


def _descriptions() -> dict[str, tuple[Distribution, str]]:
    """Return descriptions by normalised name (PEP 503). Of a package installed twice, the one that an import finds."""
    found: dict[str, tuple[Distribution, str]] = {}
    for distribution in distributions():
        name, description = _metadata(distribution)
        if NAME.fullmatch(name):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), (distribution, description))
    return found


def _metadata(distribution: Distribution) -> tuple[str, str]:
    """Return name and description, if it is Markdown. It is the body of the metadata."""
    try:
        metadata = distribution.metadata
    except (OSError, UnicodeDecodeError, LookupError):  # partly removed, or not UTF-8
        return "", ""
    if metadata is None or not _field(metadata, "Description-Content-Type").startswith(MARKDOWN):
        return "", ""
    return _field(metadata, "Name"), str(metadata.get_payload())[:MAX_CHARACTERS]  # type: ignore[attr-defined]


def _field(metadata: Any, name: str) -> str:
    """Return a field, or "". Indexing fails where OpenTelemetry installed the backport of importlib.metadata."""
    return str(metadata.get(name) or "")


def _document(name: str, distribution: Distribution, description: str) -> Document:
    text = CHANGELOG.split(from_markdown(description).text, maxsplit=1)[0].strip()
    title = f"{_field(distribution.metadata, 'Name')} {distribution.version}"
    return Document(f"pypi:{name}", title, f"pkg:pypi/{name}", MARKDOWN, text)
