"""Reading documents: prose from every kind of file, and a reason where there is none."""

import os
import re
import zlib
from pathlib import Path

import pytest

from outbox_demo.documents import Document, Skipped, find_documents, read_document
from outbox_demo.prose import from_html, from_markdown, from_plain

CONTENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

HTML = """<!doctype html><html><head><title>On relays</title><script>var x = 1;</script></head><body>
<nav>Home | About</nav><h1>Relays</h1><p>A relay <b>delivers</b> messages.<p>See <a href="https://x.example">more</a>.
<pre>code()</pre></body></html>"""

MARKDOWN = """---
layout: post
---
# The outbox

[![badge](https://x.example/b.svg)](https://x.example) Write with `emit`, never with `session.commit(now=True)`.

```python
print("code")
```

- first
- second
"""


def pdf(text: str, title: str = "A report") -> bytes:
    """Return the smallest PDF with one page of text."""
    stream = zlib.compress(f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode())
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Title (%s) >>" % title.encode(),
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"xref\n0 7\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + table + b"trailer << /Size 7 /Root 1 0 R /Info 6 0 R >>\nstartxref\n%d\n%%%%EOF" % len(body)


def read(tmp_path: Path, name: str, content: str | bytes) -> Document:
    document = read_any(tmp_path, name, content)
    assert isinstance(document, Document), document
    return document


def skip(tmp_path: Path, name: str, content: str | bytes) -> Skipped:
    skipped = read_any(tmp_path, name, content)
    assert isinstance(skipped, Skipped), skipped
    assert skipped.source.endswith(name)
    return skipped


def read_any(tmp_path: Path, name: str, content: str | bytes) -> Document | Skipped:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_document(path)


def test_a_text_file_is_read_in_paragraphs(tmp_path: Path) -> None:
    document = read(tmp_path, "note.txt", "A relay\r\nreads.\r\n\r\nIt delivers, see https://x.example/a?b.\r\n")

    assert document.text == "A relay reads.\n\nIt delivers, see"
    assert (document.title, document.media_type) == ("A relay reads.", "text/plain")
    assert document.source == str(tmp_path / "note.txt")


def test_html_gives_its_visible_text_and_its_title(tmp_path: Path) -> None:
    document = read(tmp_path, "page.html", HTML)

    assert document.title == "On relays"
    assert document.text.split("\n\n") == ["Relays", "A relay delivers messages.", "See more."]


def test_markdown_loses_code_badges_and_front_matter(tmp_path: Path) -> None:
    document = read(tmp_path, "README.md", MARKDOWN)

    assert document.title == "The outbox"
    assert document.text.split("\n\n") == ["The outbox", "Write with emit, never with — .", "first", "second"]


def test_a_pdf_gives_its_text_and_its_title(tmp_path: Path) -> None:
    document = read(tmp_path, "report.pdf", pdf("The relay delivers."))

    assert (document.title, document.text) == ("A report", "The relay delivers.")
    assert document.media_type == "application/pdf"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_is_read_in_the_encoding_it_has(tmp_path: Path, encoding: str) -> None:
    text = "Die Übertragung der Nachrichten über den Vermittler läuft zuverlässig, größer als gewöhnlich."
    assert read(tmp_path, "note.txt", text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.txt", b"", "has no text"),
        ("blank.txt", b" \n\n ", "has no text"),
        ("code.md", b"```\nonly code\n```\n", "has no text"),
        ("blank.pdf", pdf(""), "has no text"),
        ("image.txt", bytes(range(256)) * 4, "it is binary, not text"),
        ("image.html", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 9, "it is binary, not text"),
        ("lie.pdf", b"this is no PDF", "is broken"),
        ("cut.pdf", pdf("Hello there")[:200], "is broken"),
        ("photo.jpg", b"\xff\xd8\xff", "not a .txt, .md, .html or .pdf file"),
    ],
)
def test_what_cannot_be_read_is_skipped_with_a_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    assert reason in skip(tmp_path, name, content).reason


def test_a_path_that_leads_nowhere_is_skipped_by_name(tmp_path: Path) -> None:
    [skipped] = map(read_document, find_documents([tmp_path / "gone.txt"]))

    assert isinstance(skipped, Skipped)
    assert "gone.txt: does not exist" in str(skipped)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")

    skipped = read_document(tmp_path / "pipe.txt")
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "is not a file"


def test_a_bad_file_does_not_keep_the_rest_from_being_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0")
    (tmp_path / "b.txt").write_text("A relay reads.")

    kinds = [type(found) for found in map(read_document, find_documents([tmp_path]))]
    assert kinds == [Skipped, Document]


def test_folders_are_read_in_order_and_each_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/.hidden.md", ".git/config.txt", "a/b/c.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    found = find_documents([tmp_path, tmp_path / "b.txt", tmp_path / "a"])
    assert {str(path.relative_to(tmp_path)): is_named for path, is_named in found.items()} == {
        "b.txt": True,
        "a/z.md": False,
        "a/b/c.html": False,
    }
    assert [path.name for path in found] == ["b.txt", "z.md", "c.html"]


def test_the_id_is_safe_and_stays_with_the_path(tmp_path: Path) -> None:
    strange = "ünïcode & <spaces>\n.txt"
    first, second = read(tmp_path, strange, "One relay."), read(tmp_path, strange, "Two relays.")
    other = read(tmp_path, "other.txt", "One relay.")

    assert first.id == second.id != other.id
    assert CONTENT_ID.fullmatch(first.id)
    assert "\n" not in first.source
    assert first.sha256 == other.sha256 != second.sha256


def test_a_name_that_is_not_unicode_can_still_be_stored(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("One relay.")

    document = read_document(Path(os.fsdecode(path)))
    assert isinstance(document, Document)
    assert document.source.encode().endswith(b"caf\\xe9.txt")


def test_wrapping_alone_does_not_change_a_text() -> None:
    assert from_plain("A relay\nreads.").text == from_plain("A relay reads.\n").text


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text", ["a", "a@", "`", ">>> a\n", "- \n", " ", "[", ".. a\n", "::\n\n ", "<div>", "<p>a", "</b>"]
)
def test_a_monotonous_source_takes_no_more_time_than_its_length(text: str) -> None:
    for reader, length in ((from_plain, 50_000), (from_html, 50_000), (from_markdown, 20_000)):  # ours, and a library's
        reader(text * (length // len(text)))
