"""Documents to extract topics from: the user's files.

A file that cannot be read becomes a `Skipped` with the reason; all other files are still read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import charset_normalizer
from pypdf import PdfReader

from outbox_demo.prose import Prose, from_html, from_markdown, from_plain

MAX_BYTES = 64 * 1024 * 1024
MAX_PAGES = 2_000
TITLE_LENGTH = 120
OF_ANOTHER_KIND = "not a .txt, .md, .html or .pdf file"

# pypdf logs every flaw that it works around; serious ones come back as values
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Skipped:
    """A file that was skipped."""

    source: str
    reason: str
    named: bool = False  # whether the user named this file, or it was found in a folder

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"

    @property
    def is_stranger(self) -> bool:
        """Whether the file was only found in a folder and is of a kind that is not read."""
        return self.reason == OF_ANOTHER_KIND and not self.named


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


def find_documents(paths: Iterable[str | os.PathLike[str]]) -> dict[Path, bool]:
    """Return the files to read, each once and in a stable order; ``False`` if a file is only in a named folder.

    Hidden files and folders inside a folder are left out. A path that does not exist is returned too, so that the
    reader reports it.
    """
    found: dict[Path, bool] = {}
    for path in map(Path, paths):
        for file in _files_below(path) if path.is_dir() else [path]:
            absolute = Path(os.path.abspath(file))  # ".." is resolved, and links are kept
            found[absolute] = found.get(absolute, False) or file == path
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def read_document(path: Path, *, named: bool = True) -> Document | Skipped:
    """Read a `.txt`, `.md`, `.html` or `.pdf` file.

    Returns the document, or the reason why there is none; never raises because of a file's content.
    """
    source = _printable(os.fsencode(path.absolute()).decode(errors="backslashreplace"))
    media_type, reader = READERS.get(path.suffix.lower(), ("", None))
    try:
        if problem := _problem(path, is_known=reader is not None):
            return Skipped(source, problem, named)
        prose = reader(path.read_bytes()) if reader else Prose("")
    except OSError as error:
        return Skipped(source, f"cannot be opened ({error.strerror})", named)
    except Exception as error:  # parsers raise errors of many types for broken files
        return Skipped(source, _printable(f"is broken ({type(error).__name__}: {error})")[:200], named)
    if not prose.text:
        return Skipped(source, "has no text", named)
    return Document(_file_id(path), _title(prose, path.stem), source, media_type, prose.text)


def _problem(path: Path, *, is_known: bool) -> str | None:
    """Return why a file cannot be read, before it is opened: opening a pipe would block forever."""
    if not path.exists():
        return "does not exist"
    if not path.is_file():
        return "is not a file"
    if not is_known:
        return OF_ANOTHER_KIND
    return "is larger than 64 MiB" if path.stat().st_size > MAX_BYTES else None


def _decode(raw: bytes) -> str:
    """Decode bytes in their most probable encoding."""
    best = charset_normalizer.from_bytes(raw).best()
    if best is None or "\0" in str(best):
        raise ValueError("it is binary, not text")
    return str(best)


def _read_pdf(raw: bytes) -> Prose:
    reader = PdfReader(BytesIO(raw))
    if reader.is_encrypted:
        reader.decrypt("")
    pages = (page.extract_text() for page, _ in zip(reader.pages, range(MAX_PAGES), strict=False))
    text = from_plain("\n\n".join(re.sub(r"(\w)-\n(\w)", r"\1\2", page) for page in pages)).text
    title = reader.metadata.title if reader.metadata else None
    return Prose(text, title)


_Reader = tuple[str, Callable[[bytes], Prose]]
_MARKDOWN: _Reader = ("text/markdown", lambda raw: from_markdown(_decode(raw)))
_HTML: _Reader = ("text/html", lambda raw: from_html(_decode(raw)))
READERS: dict[str, _Reader] = {
    ".txt": ("text/plain", lambda raw: from_plain(_decode(raw))),
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".html": _HTML,
    ".htm": _HTML,
    ".pdf": ("application/pdf", _read_pdf),
}


def _title(prose: Prose, fallback: str) -> str:
    first_line = prose.text.split("\n", 1)[0]
    found = prose.title or (first_line if len(first_line) <= TITLE_LENGTH else fallback)
    return _printable(" ".join(found.split()))[:TITLE_LENGTH] or "untitled"


def _printable(text: str) -> str:
    """Return the text on one line and storable: without control characters and lone surrogates."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _file_id(path: Path) -> str:
    """Return an id that is readable, safe in a URL, and different for every path."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-")[:48] or "document"
    return f"{slug}-{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]}"
