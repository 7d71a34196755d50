"""Which event types a destination wants."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def wants(globs: Iterable[str], event_type: str) -> bool:
    """Whether a subscription wants messages of this type.

    Example:
        >>> wants(["extraction.*", "page.read"], "extraction.completed")
        True
    """
    return any(fnmatchcase(event_type, glob) for glob in globs)
