"""Prepare text to be shown: mask passwords, and escape characters that could forge a line."""

from __future__ import annotations

import re

MASK = "***"

_URL_PASSWORD = re.compile(r"(?P<user>[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s@]+@", re.IGNORECASE)
_QUERY_PASSWORD = re.compile(r"(?P<name>[?&](?:ssl)?password=)[^\s&#]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return ``text`` with the passwords of all URLs in it masked.

    Example:
        >>> redacted("cannot reach postgresql://app:hunter2@db/outbox")
        'cannot reach postgresql://app:***@db/outbox'
    """
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
