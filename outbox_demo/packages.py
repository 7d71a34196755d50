"""Text that every machine with this package has: the long descriptions of installed Python packages, in Markdown."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from typing import Any

from outbox_demo.documents import Document
from outbox_demo.prose import from_markdown

MARKDOWN = "text/markdown"
LIMIT = 30
MAX_CHARACTERS = 200_000
ENOUGH = 600
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CHANGELOG = re.compile(
    r"^#* *(?:change ?log|changes|release (?:notes|history)|history)\b.{0,40}$", re.IGNORECASE | re.MULTILINE
)


def installed_descriptions() -> list[Document]:
    """Return documents made of the descriptions of installed packages: at most `LIMIT`, the same ones each time.

    The packages with the longest descriptions are taken, not counting a pasted changelog. They are sorted by name. If a
    package is installed twice, the copy that an import finds is taken.
    """
    found: dict[str, tuple[str, str]] = {}
    for distribution in distributions():
        name, description = _description(distribution)
        if NAME.fullmatch(name):
            normal = re.sub(r"[-_.]+", "-", name).lower()  # as in PEP 503
            found.setdefault(normal, (f"{name} {distribution.version}", description))
    longest = sorted(found, key=lambda name: (-len(found[name][1]), name))[:LIMIT]
    documents = [_document(name, *found[name]) for name in sorted(longest)]
    return [document for document in documents if len(document.text) >= ENOUGH]


def _description(distribution: Distribution) -> tuple[str, str]:
    """Return name and description, if it is Markdown. It is the body of the metadata."""
    try:
        # Indexing would fail where OpenTelemetry installed the backport of importlib.metadata.
        metadata: Any = distribution.metadata
    except (OSError, UnicodeDecodeError, LookupError):  # partly removed, or not UTF-8
        return "", ""
    if metadata is None or not str(metadata.get("Description-Content-Type")).startswith(MARKDOWN):
        return "", ""
    return str(metadata.get("Name")), CHANGELOG.split(metadata.get_payload()[:MAX_CHARACTERS], maxsplit=1)[0]


def _document(name: str, title: str, description: str) -> Document:
    return Document(f"pypi:{name}", title, f"pkg:pypi/{name}", MARKDOWN, from_markdown(description).text)
