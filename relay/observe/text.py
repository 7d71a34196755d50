"""Prepare text to be shown: mask passwords, and escape characters that could forge a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from urllib.parse import quote

MASK = "***"
SHORTEST_HIDDEN = 6  # a shorter value is not a secret, and masking it would hide ordinary words

_hidden: set[str] = set()

# Masks the payload of the message that is being sent in this context (see `relay.observe.payload`).
payload_mask: ContextVar[Callable[[str], str] | None] = ContextVar("payload_mask", default=None)

# Our messages show how a URL is written: `user:password@` in them is an example.
_URL_PASSWORD = re.compile(r"(?P<user>[a-z][a-z0-9+.-]*://(?!user:password@)[^\s:/@]*):[^\s@]+@", re.IGNORECASE)
_QUERY_PASSWORD = re.compile(r"(?P<name>[?&](?:ssl)?password=)[^\s&#]+", re.IGNORECASE)


def masked(text: str, values: Iterable[str]) -> str:
    """Return ``text`` with these values masked, the longest first."""
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def hide(values: Iterable[str]) -> None:
    """Have `redacted` mask these values, as they are and as a URL spells them, from now on and in this process."""
    for value in values:
        if len(value) >= SHORTEST_HIDDEN:
            _hidden.update({value, quote(value), quote(value, safe="")})


def redacted(text: str) -> str:
    """Return ``text`` with the passwords of all URLs in it masked, and with all hidden values (see `hide`).

    Example:
        >>> redacted("cannot reach postgresql://app:hunter2@db/outbox")
        'cannot reach postgresql://app:***@db/outbox'
    """
    if (mask := payload_mask.get()) is not None:
        text = mask(text)
    text = masked(text, _hidden)
    return _QUERY_PASSWORD.sub(rf"\g<name>{MASK}", _URL_PASSWORD.sub(rf"\g<user>:{MASK}@", text))


def one_line(text: str) -> str:
    r"""Return ``text`` with control characters escaped.

    Example:
        >>> one_line("taken\nERROR forged")
        'taken\\nERROR forged'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
