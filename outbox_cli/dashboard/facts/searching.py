"""The search box: the filters of `outbox messages list`, as words."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from relay.admin.messages.choice import Choice
from relay.decide.verdict import State
from relay.platform.units.durations import before

FIELDS = ("type", "key", "subject", "state", "destination", "since", "until", "id")
STATES = tuple(State)


class InvalidSearch(ValueError):
    """A search cannot be parsed; the text says what would be valid."""


@dataclass(frozen=True)
class Search:
    """A search. All given conditions must hold.

    Args:
        text: The search, as it was typed.
        choice: The conditions, except those on a state and an id.
        id: The id of one message.
    """

    text: str = ""
    choice: Choice = field(default_factory=Choice)
    state: str | None = None
    id: str | None = None


def parse(text: str, at: datetime) -> Search:
    """Parse a search.

    Args:
        text: Words such as ``type:order.*``, ``key:c-1``, ``state:dead``, ``since:2h``; an id; quotes keep blanks.
        at: The time from which ``since:2h`` counts back.

    Raises:
        InvalidSearch: A word is not a filter.

    Example:
        >>> parse("state:dead type:order.*", datetime.now(UTC)).choice.type_
        'order.*'
    """
    found: dict[str, Any] = {}
    for word in _words(text):
        name, colon, value = word.partition(":")
        if not colon:
            name, value = ("id", word) if is_id(word) else ("type", word)
        if name not in FIELDS:
            raise InvalidSearch(f"{name}: is not a filter. Use {', '.join(f'{each}:' for each in FIELDS)} or an id")
        if not value:
            raise InvalidSearch(f"{name}: needs a value")
        if name in found:
            raise InvalidSearch(f"{name}: is given twice")
        found[name] = _value(name, value, at)
    state, id_, type_ = (found.pop(name, None) for name in ("state", "id", "type"))
    return Search(text.strip(), Choice(type_=type_, **found), state, id_)


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        return list(lexer)
    except ValueError:
        raise InvalidSearch("a quotation mark is missing") from None


def _value(name: str, value: str, at: datetime) -> object:
    match name:
        case "since" | "until":
            return instant(name, value, at)
        case "state" if value not in STATES:
            raise InvalidSearch(f"state:{value} does not exist. There are {', '.join(STATES)}")
        case "id":
            if not is_id(value):
                raise InvalidSearch(f"id:{value} is not an id: ids are UUIDs")
            return str(UUID(value))
    return value


def instant(name: str, value: str, at: datetime) -> datetime:
    """Return a time that is given as a date, or as a duration before `at`.

    Raises:
        InvalidSearch: The text is neither.
    """
    try:
        return before(at, value)
    except ValueError as error:
        raise InvalidSearch(f"{name}:{value} is not a time: {error}") from None


def is_id(text: str) -> bool:
    """Return whether a text looks like the id of a message."""
    try:
        UUID(text)
    except ValueError:
        return False
    return len(text) >= 32
