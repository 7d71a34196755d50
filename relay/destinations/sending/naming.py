"""Names of topics, streams and subjects: literal, or made from a message."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from pydantic import AfterValidator

from outbox import Message

TYPE, KEY = "{type}", "{key}"
NO_KEY = "-"

_PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")


def is_literal(template: str) -> bool:
    """Whether all messages have the same name."""
    return not _PLACEHOLDER.search(template)


def template(*placeholders: str) -> AfterValidator:
    """Return what checks a setting that holds such a name.

    Args:
        placeholders: What may stand in it: `TYPE`, `KEY`.
    """

    def check(text: str) -> str:
        for found in _PLACEHOLDER.findall(text):
            if found not in placeholders:
                raise ValueError(f"{found} is not known here: use {' and '.join(placeholders)}, or a name as it is")
        return text

    return AfterValidator(check)


def namer(
    text: str, of_type: Callable[[str], str] = str, of_key: Callable[[str], str] = str
) -> Callable[[Message], str]:
    """Return what makes a message's name.

    Args:
        text: The template.
        of_type: Makes a part of a name from an event type.
        of_key: Makes a part of a name from an ordering key.
    """
    if is_literal(text):
        return lambda message: text

    @lru_cache(maxsize=1024)  # types are few, unless somebody makes them up as they go
    def filled(type_: str, key: str | None) -> str:
        return text.replace(TYPE, of_type(type_)).replace(KEY, NO_KEY if key is None else of_key(key))

    if KEY in text:
        return lambda message: filled(message.type, message.ordering_key)
    return lambda message: filled(message.type, None)
