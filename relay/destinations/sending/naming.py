"""Names of topics, streams and subjects: literal, or made from a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from pydantic import AfterValidator

from outbox import Message

TYPE, KEY = "{type}", "{key}"
NO_KEY = "-"

_PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")
_GLOB = re.compile(r"[*?\[\]!]")


def is_literal(template: str) -> bool:
    """Return whether all messages get the same name."""
    return not _PLACEHOLDER.search(template)


def template(*placeholders: str) -> AfterValidator:
    """Return a validator for a setting that holds such a name.

    Args:
        placeholders: The placeholders that it may contain: `TYPE`, `KEY`.
    """

    def check(text: str) -> str:
        for found in _PLACEHOLDER.findall(text):
            if found not in placeholders:
                raise ValueError(f"{found} is not known here: use {' and '.join(placeholders)}, or a fixed name")
        return text

    return AfterValidator(check)


def namer(
    text: str, of_type: Callable[[str], str] = str, of_key: Callable[[str], str] = str
) -> Callable[[Message], str]:
    """Return a function that makes a message's name.

    Args:
        text: The template.
        of_type: Converts an event type to a part of a name.
        of_key: Converts an ordering key to a part of a name.
    """
    if is_literal(text):
        return lambda message: text

    @lru_cache(maxsize=1024)  # types are few, unless they are generated
    def filled(type_: str, key: str | None) -> str:
        return text.replace(TYPE, of_type(type_)).replace(KEY, NO_KEY if key is None else of_key(key))

    if KEY in text:
        return lambda message: filled(message.type, message.ordering_key)
    return lambda message: filled(message.type, None)


def known_names(template: str, events: Sequence[str]) -> list[str]:
    """Return the names that are known before the first message: those without a pattern or an ordering key."""
    if is_literal(template):
        return [template]
    plain = [] if KEY in template else [event for event in events if not _GLOB.search(event)]
    return [template.replace(TYPE, event) for event in plain]
