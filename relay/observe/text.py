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

# The beginning of a URL with a password, in a word that an @ follows. Our messages show how a URL is written:
# `user:password@` in them is an example.
_BEFORE_PASSWORD = re.compile(r"[a-z0-9+.-]://(?!user:password\Z)[^:/]*:(?=.)", re.IGNORECASE)
_QUERY_PASSWORD = re.compile(r"(?P<name>[?&](?:ssl)?password=)[^\s&#]+", re.IGNORECASE)


def masked(text: str, values: Iterable[str]) -> str:
    """Return ``text`` with these values masked, the longest first."""
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def hide(values: Iterable[str]) -> None:
    """Have `redacted` mask these values in this process from now on, both as they are and as a URL spells them."""
    for value in values:
        if len(value) >= SHORTEST_HIDDEN:
            _hidden.update({value, quote(value), quote(value, safe="")})


def redacted(text: str) -> str:
    """Return ``text`` in which the passwords of all URLs and all hidden values (see `hide`) are masked.

    Example:
        >>> redacted("cannot reach postgresql://app:hunter2@db/outbox")
        'cannot reach postgresql://app:***@db/outbox'
    """
    if (mask := payload_mask.get()) is not None:
        text = mask(text)
    text = masked(text, _hidden)
    return _QUERY_PASSWORD.sub(rf"\g<name>{MASK}", _without_url_passwords(text))


def _without_url_passwords(text: str) -> str:
    """Mask the passwords of URLs, in a time that grows with the length of the text.

    One pattern for the whole would look from each letter of a long word to its end: a message's data in an error would
    stop the relay for minutes.
    """
    if "://" not in text:
        return text
    *before_ats, rest = text.split("@")
    return "@".join([*map(_masked_at_the_end, before_ats), rest])


def _masked_at_the_end(text: str) -> str:
    """Mask the password of the URL that ends this text, without its @."""
    if not text or text[-1].isspace():
        return text
    word = text.rsplit(maxsplit=1)[-1]
    found = _BEFORE_PASSWORD.search(word)
    return text if found is None else text[: len(text) - len(word) + found.end()] + MASK


def shown(error: BaseException) -> str:
    """Return an error in one line, without passwords; for an error of SQLAlchemy, the database's own words."""
    return one_line(redacted(" ".join(str(getattr(error, "orig", None) or error).split())))


def one_line(text: str) -> str:
    r"""Return ``text`` with control characters escaped.

    Example:
        >>> one_line("taken\nERROR forged")
        'taken\\nERROR forged'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
