"""Convert markup to prose: the readable text in paragraphs, without code, addresses and decoration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser

FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)
ADDRESS = re.compile(r"(?:https?|ftp|mailto|file):\S+|www\.\S+|(?<!\S)[^\s@]{1,64}@[^\s@]{1,255}")
BULLET = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+", re.MULTILINE)

TITLES = ("title", "h1", "h2", "h3", "h4", "h5", "h6")
IGNORED = "button footer iframe math nav noscript object pre script select style svg template textarea title"
BLOCKS = "article aside blockquote br dd div dl dt figcaption header hr li main ol p section table td th tr ul"
CODE = "code, kbd, samp, tt"
WORD_IN_CODE = re.compile(r"[^\W\d_][\w-]*")


@dataclass(frozen=True)
class Prose:
    """Text in paragraphs separated by blank lines, and the title if the markup has one."""

    text: str
    title: str | None = None


def from_plain(source: str) -> Prose:
    """Return the paragraphs as they are, with the lines of each joined."""
    return Prose(_paragraphs(BULLET.sub("\n\n", source)))


def from_html(source: str) -> Prose:
    """Return the visible text; the title is the page's own, or else its first heading of the highest level."""
    page = LexborHTMLParser(_storable(source))
    titles = (" ".join(each.text().split()) for tag in TITLES for each in page.css(tag))
    title = next(filter(None, titles), None)
    page.strip_tags(IGNORED.split(), recursive=True)
    for each in page.css(CODE):
        # A single word in code type is often a topic; an expression never is.
        each.insert_before(code if WORD_IN_CODE.fullmatch(code := each.text()) else " — ")
        each.remove()
    for each in page.css(", ".join((*BLOCKS.split(), *TITLES))):
        each.insert_before("\n\n")
        each.insert_after("\n\n")
    return Prose(_paragraphs(page.body.text() if page.body else ""), title)


def from_markdown(source: str) -> Prose:
    """Return the rendered text without YAML front matter."""
    return from_html(_markdown().render(FRONT_MATTER.sub("", source)))


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table").enable("strikethrough")


def _paragraphs(text: str) -> str:
    """Return one line per paragraph, so equal text has equal bytes, however its lines were wrapped."""
    lines = _storable(text).replace("\r\n", "\n").replace("\r", "\n")
    blocks = re.split(r"\n\s*\n", ADDRESS.sub(" ", lines))
    return "\n\n".join(line for block in blocks if (line := " ".join(block.split())))


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\0", " ")
