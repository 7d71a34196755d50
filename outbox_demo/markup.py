"""Convert markup to prose: the readable text in paragraphs, without code, addresses and decoration.

Each function takes the source and returns a `Prose`. Parsers read Markdown and HTML. A few patterns are enough for
reStructuredText, which only the descriptions of installed packages use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt

from outbox_demo.page import Page, inline_code

FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)
ADDRESS = re.compile(r"(?:https?|ftp|mailto|file):\S+|www\.\S+|(?<!\S)[^\s@]{1,64}@[^\s@]{1,255}")
BULLET = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+", re.MULTILINE)

RST_TARGET = re.compile(r"^\.\. (?:_[^\n]*|\|[^\n]*)$", re.MULTILINE)
RST_DIRECTIVE = re.compile(r"^( *)\.\. [^\n]*\n(?:(?:\1 +[^\n]*)?\n)*", re.MULTILINE)
RST_LITERAL = re.compile(r"::\s*\n(?=\n)(?:[ \t]+[^\n]*\n|[ \t]*\n)+")
RST_RULE = re.compile(r"^([=\-~^\"'#*+_.:`])\1{2,}\s*$", re.MULTILINE)
RST_LINK = re.compile(r"`([^`<]*?)\s*<[^>`]*>`_{1,2}")
RST_ROLE = re.compile(r":[\w:+-]+:`([^`<]*?)\s*(?:<[^>`]*>)?`")
RST_DOCTEST = re.compile(r"^[ \t]*>>> [^\n]*\n(?:[ \t]*\S[^\n]*\n)*", re.MULTILINE)
RST_CODE = re.compile(r"``([^`]*)``")
RST_FIELD = re.compile(r"^:[\w ]+:.*$", re.MULTILINE)
RST_MARKS = re.compile(r"[*|\\]|`_{0,2}|(?<=\w)_{1,2}(?=\W)")


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


def from_rst(source: str) -> Prose:
    """Return the text without directives, literal blocks, targets and roles."""
    text = RST_TARGET.sub("", source.replace("\r\n", "\n") + "\n")
    text = RST_DIRECTIVE.sub("\n", text)
    text = RST_LITERAL.sub(".\n\n", text)
    text = RST_RULE.sub("\n", RST_DOCTEST.sub("\n", text))
    text = RST_FIELD.sub("", text)
    text = RST_LINK.sub(r"\1", RST_ROLE.sub(r"\1", text))
    text = RST_CODE.sub(lambda match: inline_code(match[1]), text)
    return from_plain(RST_MARKS.sub("", BULLET.sub("\n\n", text)))


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table").enable("strikethrough")


def _paragraphs(text: str) -> str:
    """Return one line per paragraph, so equal text has equal bytes, however its lines were wrapped."""
    storable = text.encode(errors="replace").decode().replace("\0", " ")
    blocks = re.split(r"\n\s*\n", ADDRESS.sub(" ", storable.replace("\r\n", "\n").replace("\r", "\n")))
    return "\n\n".join(line for block in blocks if (line := " ".join(block.split())))
