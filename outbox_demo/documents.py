"""Documents to extract topics from: the user's files, or the descriptions of the installed packages.

A file that cannot be read becomes a `Skipped` with the reason; the others are still read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from io import BytesIO
from pathlib import Path

import charset_normalizer
from pypdf import PdfReader

from outbox_demo.markup import Prose, from_html, from_markdown, from_plain

MAX_BYTES = 64 * 1024 * 1024
MAX_PAGES = 2_000
TITLE_LENGTH = 120

# pypdf logs every flaw that it works around; serious ones come back as values
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


class SkipReason(StrEnum):
    """Why a file was not read."""

    MISSING = "does not exist"
    UNSUPPORTED = "not a .txt, .md, .html or .pdf file"
    UNREADABLE = "cannot be opened"
    TOO_LARGE = "larger than 64 MiB"
    EMPTY = "has no text"
    BINARY = "is binary, not text"
    BROKEN = "is broken"


@dataclass(frozen=True)
class Skipped:
    """A file that was skipped, with the name to show for it."""

    source: str
    reason: SkipReason
    detail: str = ""
    named: bool = False  # whether the user named this file, or it was found in a folder

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True)
class Document:
    """A text to read, and its source. The same source always has the same id."""

    id: str
    title: str
    source: str
    media_type: str
    text: str = field(repr=False)

    @property
    def sha256(self) -> str:
        """The hash of the text: it changes when the text does."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def find_documents(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the files to read, each once and in a stable order: named files, and files below named folders.

    Hidden files and folders inside a folder are left out. A path that does not exist is returned too, so that reading
    it reports that.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        for file in _files_below(path) if path.is_dir() else [path]:
            found[_absolute(file)] = None
    return list(found)


def read_documents(
    paths: Iterable[Path], *, named: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[Document | Skipped]:
    """Read one file after another, each when it is asked for; mark a `Skipped` file that is in ``named``."""
    wanted = {_absolute(path) for path in named}
    for path in paths:
        found = read_document(path)
        yield replace(found, named=path in wanted) if isinstance(found, Skipped) else found


def read_document(path: Path) -> Document | Skipped:
    """Read a `.txt`, `.md`, `.html` or `.pdf` file.

    Returns the document, or the reason why there is none; never raises because of a file's content.
    """
    source = _printable(os.fsencode(path.absolute()).decode(errors="backslashreplace"))
    reader = READERS.get(path.suffix.lower())
    if problem := _unopenable(path, known=reader is not None):
        return Skipped(source, problem)
    assert reader is not None
    try:
        prose = reader.read(path.read_bytes())
    except OSError as error:
        return Skipped(source, SkipReason.UNREADABLE, error.strerror or str(error))
    except _NotText:
        return Skipped(source, SkipReason.BINARY)
    except Exception as error:  # parsers raise errors of many types for broken files
        return Skipped(source, SkipReason.BROKEN, _printable(f"{type(error).__name__}: {error}")[:200])
    if not prose.text:
        return Skipped(source, SkipReason.EMPTY)
    return Document(_file_id(path), _title(prose, path.stem), source, reader.media_type, prose.text)


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path without ``..``; links are kept."""
    return Path(os.path.abspath(path))


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _unopenable(path: Path, *, known: bool) -> SkipReason | None:
    """Return why a file cannot be read, before it is opened: opening a pipe would block forever."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return SkipReason.MISSING
    except OSError:
        return SkipReason.UNREADABLE
    if not path.is_file():
        return SkipReason.UNREADABLE
    if not known:
        return SkipReason.UNSUPPORTED
    if not size:
        return SkipReason.EMPTY
    return SkipReason.TOO_LARGE if size > MAX_BYTES else None


class _NotText(ValueError):
    pass


def _decode(raw: bytes) -> str:
    """Decode bytes as UTF-8, or else in their most probable encoding."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        best = None if _looks_binary(raw) else charset_normalizer.from_bytes(raw).best()
        if best is None:
            raise _NotText from None
        text = str(best)
    if _looks_binary(text.encode()):
        raise _NotText
    return text


def _looks_binary(raw: bytes) -> bool:
    """Return whether bytes are binary: text has no NUL (unless it is marked as UTF-16) and few control characters."""
    head = raw[:65_536]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return b"\0" in head or controls * 100 > len(head)


def _read_pdf(raw: bytes) -> Prose:
    reader = PdfReader(BytesIO(raw))
    if reader.is_encrypted:
        reader.decrypt("")
    pages = (page.extract_text() for page, _ in zip(reader.pages, range(MAX_PAGES), strict=False))
    text = from_plain("\n\n".join(re.sub(r"(\w)-\n(\w)", r"\1\2", page) for page in pages)).text
    title = reader.metadata.title if reader.metadata else None
    return Prose(text, title)


@dataclass(frozen=True)
class _Reader:
    media_type: str
    read: Callable[[bytes], Prose]


_PLAIN = _Reader("text/plain", lambda raw: from_plain(_decode(raw)))
_MARKDOWN = _Reader("text/markdown", lambda raw: from_markdown(_decode(raw)))
_HTML = _Reader("text/html", lambda raw: from_html(_decode(raw)))
_PDF = _Reader("application/pdf", _read_pdf)
READERS = {
    ".txt": _PLAIN,
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".html": _HTML,
    ".htm": _HTML,
    ".pdf": _PDF,
}


def _title(prose: Prose, fallback: str) -> str:
    first_line = prose.text.split("\n", 1)[0]
    for candidate in (prose.title, first_line if len(first_line) <= TITLE_LENGTH else None, fallback):
        if title := _printable(" ".join((candidate or "").split())):
            return title[:TITLE_LENGTH]
    return "untitled"


def _printable(text: str) -> str:
    """Return the text on one line and storable: without control characters and lone surrogates."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _file_id(path: Path) -> str:
    """Return an id that is readable, safe in a URL, and different for every path."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-")[:48] or "document"
    return f"{slug}-{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]}"
