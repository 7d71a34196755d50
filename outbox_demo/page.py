"""The readable text of an HTML page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

TITLES = ("title", "h1", "h2", "h3", "h4", "h5", "h6")
IGNORED = """
    button footer iframe math nav noscript object pre script select style svg template textarea
"""
BLOCKS = """
    article aside blockquote body br dd div dl dt figcaption header hr li main ol p section table td th tr ul
"""
CODE = ("code", "kbd", "samp", "tt")
WORD_IN_CODE = re.compile(r"[^\W\d_][\w-]*")


class Page(HTMLParser):
    """Reads a page in one pass, in a time linear in its length.

    Blank lines separate blocks; scripts, navigation and code are left out. After `close`, `text` holds the pieces to
    join.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self._titles: dict[str, list[str]] = {}
        self._heading: str | None = None
        self._code: list[str] | None = None
        self._ignoring: list[str] = []
        self._ignored = frozenset(IGNORED.split())
        self._blocks = frozenset((*BLOCKS.split(), *TITLES))

    @property
    def title(self) -> str | None:
        """The page's own title, or else its first heading of the highest level."""
        found = (" ".join("".join(self._titles.get(tag, [])).split()) for tag in TITLES)
        return next(filter(None, found), None)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if self._ignoring:
            self._ignoring += [tag] * (tag == self._ignoring[0])
        elif tag in self._ignored:
            self._ignoring = [tag]
        elif tag in CODE:
            self._code = []
        else:
            self._separate(tag)
            if tag in TITLES and tag not in self._titles:
                self._heading, self._titles[tag] = tag, []

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if not self._ignoring:
            self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._ignoring:
            if tag == self._ignoring[0]:
                self._ignoring.pop()
        elif tag in CODE and self._code is not None:
            self.text.append(inline_code("".join(self._code)))
            self._code = None
        else:
            self._separate(tag)
            if tag == self._heading:
                self._heading = None

    def handle_data(self, data: str) -> None:
        if self._ignoring:
            return
        if self._heading is not None:
            self._titles[self._heading].append(data)
        if self._heading != "title":
            (self.text if self._code is None else self._code).append(data)

    def _separate(self, tag: str) -> None:
        if tag in self._blocks:
            self.text.append("\n\n")


def inline_code(code: str) -> str:
    """Return a single word in code type, which is often a topic, as it is; replace an expression by a dash."""
    return code if WORD_IN_CODE.fullmatch(code) else " — "
