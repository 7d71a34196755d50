"""The event types that a destination wants now, and those that it wanted in earlier generations.

The registry records what a destination wanted in each generation of registered destinations: a list of
``[generation, events]``, with ``null`` for a destination that was removed. A message in the history names the
generation for which it was settled, so its row need not list the destinations that took it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any


def wants(globs: Iterable[str], event_type: str) -> bool:
    """Return whether a subscription wants messages of this type.

    Example:
        >>> wants(["extraction.*", "page.read"], "extraction.completed")
        True
    """
    return any(fnmatchcase(event_type, glob) for glob in globs)


def remembered(wanted: Sequence[Any], generation: int, events: Sequence[str] | None) -> list[Any]:
    """Return the list with an entry for what a destination wants from this generation on.

    Example:
        >>> remembered([[1, ["a.*"]]], 2, ["a.*"])
        [[1, ['a.*']]]
        >>> remembered([[1, ["a.*"]]], 3, None)
        [[1, ['a.*']], [3, None]]
    """
    now = None if events is None else list(events)
    return [*wanted] if wanted and wanted[-1][1] == now else [*wanted, [generation, now]]


def wanted_in(wanted: Sequence[Any], generation: int) -> Sequence[str]:
    """Return what a destination wanted in this generation; nothing if it was not registered then.

    Example:
        >>> wanted_in([[2, ["a.*"]], [4, None]], 3), wanted_in([[2, ["a.*"]], [4, None]], 4)
        (['a.*'], [])
    """
    events = [events for since, events in wanted if since <= generation]
    return events[-1] or [] if events else []
