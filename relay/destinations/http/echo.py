"""Mask our secrets in a receiver's answer, in any spelling.

An error page may show a request's headers in HTML, a debugger may show them in base64 or hexadecimal, and a log may
show them line by line. So the search is for pieces of the secret: for each spelling, any eight consecutive letters and
digits, with any other characters between them. That also finds a secret that is cut, split or wrapped.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote, unquote

from relay.observe.logging import MASK, Masking

PIECE = 8
_ESCAPED = re.compile(r"\\u00([0-9a-f]{2})|\\x([0-9a-f]{2})", re.IGNORECASE)


class Echo:
    """Masks secrets in a receiver's text.

    Args:
        secrets: The values that must not be shown.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = set(secrets)
        self._whole = Masking(known)
        self._pieces = {piece for secret in known for spelled in _spellings(secret) for piece in _pieces(spelled)}
        self.masked = lru_cache(maxsize=64)(self._masked)  # a server that fails gives the same answer many times

    def _masked(self, text: str) -> str:
        """Return the text with secrets masked; return no text if a secret is escaped character by character."""
        found = self._without_pieces(self._whole.masked(text))
        return MASK if self._spans(_unescaped(found)) else found

    def _without_pieces(self, text: str) -> str:
        parts: list[str] = []
        at = 0
        for start, end in self._spans(text):
            parts += text[at:start], MASK
            at = end
        return "".join((*parts, text[at:]))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of pieces, from the first letter of each to its end; touching spans are merged."""
        places = [at for at, letter in enumerate(text) if letter.isalnum()]
        letters = "".join(text[at] for at in places).translate(_LOWER)
        spans: list[tuple[int, int]] = []
        for n in range(len(letters) - PIECE + 1):
            if letters[n : n + PIECE] in self._pieces:
                start, end = places[n], places[n + PIECE - 1] + 1
                if spans and start < spans[-1][1]:
                    start = spans.pop()[0]
                spans.append((start, end))
        return spans


_LOWER = {code: chr(code).lower() for code in range(ord("A"), ord("Z") + 1)}


def _spellings(secret: str) -> Iterator[str]:
    """Yield spellings of a secret: unchanged, in HTML, in a URL, in hexadecimal, and in base64 at each alignment."""
    octets = secret.encode()
    yield from (secret, html.escape(secret), quote(secret, safe=""), octets.hex())
    for before in range(3):
        yield b64encode(bytes(before) + octets).decode()[before and before + 1 :]


def _pieces(spelled: str) -> Iterator[str]:
    letters = "".join(filter(str.isalnum, spelled)).translate(_LOWER)
    return (letters[n : n + PIECE] for n in range(len(letters) - PIECE + 1))


def _unescaped(text: str) -> str:
    plain = _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
    return html.unescape(unquote(plain))
