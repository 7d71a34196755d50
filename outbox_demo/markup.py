"""Convert markup to prose: the readable text in paragraphs, without code, addresses and decoration.

Each function takes the source and returns a `Prose`. Parsers read Markdown and HTML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt

from outbox_demo.page import Page

FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)
ADDRESS = re.compile(r"(?:https?|ftp|mailto|file):\S+|www\.\S+|(?<!\S)[^\s@]{1,64}@[^\s@]{1,255}")
BULLET = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+", re.MULTILINE)


@dataclass(frozen=True)
class Prose:
    """Text in paragraphs separated by blank lines, and the title if the markup has one."""

    text: str
    title: str | None = None


def from_plain(source: str) -> Prose:
    """Return the paragraphs as they are, with the lines of each joined."""
    return Prose(_paragraphs(BULLET.sub("\n\n", source)))


def from_html(source: str) -> Prose:
    """Return the visible text; the title is the page's own, or else its first heading."""
    page = Page()
    page.feed(source)
    page.close()
    return Prose(_paragraphs("".join(page.text)), page.title)


def from_markdown(source: str) -> Prose:
    """Return the rendered text without YAML front matter."""
    return from_html(_markdown().render(FRONT_MATTER.sub("", source)))


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table").enable("strikethrough")


def _paragraphs(text: str) -> str:
    """Return one line per paragraph, so equal text has equal bytes, however its lines were wrapped."""
    storable = text.encode(errors="replace").decode().replace("\0", " ")
    blocks = re.split(r"\n\s*\n", ADDRESS.sub(" ", storable.replace("\r\n", "\n").replace("\r", "\n")))
    return "\n\n".join(line for block in blocks if (line := " ".join(block.split())))
