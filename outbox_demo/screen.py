"""The demo's output: progress while it works, and at the end a table and a sum that can be checked."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath
from statistics import median
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from outbox_demo.documents import Skipped, SkipReason
from outbox_demo.report import LINES_SHOWN, Line, Report
from relay.platform.wording import counted

SKIPPED_SHOWN = 20
STRANGERS_SHOWN = 3
TITLE_WIDTH = 28
PLAIN_EVERY_S = 2.0


class Screen(AbstractContextManager["Screen"]):
    """Shows progress: bars on a terminal, a line now and then elsewhere.

    Args:
        console: The console for messages, on stderr.
        deliveries: Whether a relay is at work.
    """

    def __init__(self, console: Console, *, deliveries: bool = True) -> None:
        self._console = console
        self._deliveries = deliveries
        self._lock = threading.Lock()
        self._count = self._read = self._committed = self._delivered = self._skipped = 0
        self._said_at = 0.0
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._extracting: Any = None
        self._delivering: Any = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def database(self, where: str, applied: Sequence[str]) -> None:
        self._say(f"Database: {where}" + (f" (applied {', '.join(applied)})" if applied else ""))

    def documents(self, count: int) -> None:
        self._count, self._said_at = count, time.monotonic()
        if self._console.is_terminal:
            self._progress.start()
            self._extracting = self._progress.add_task("extracting", total=count)
            if self._deliveries:
                self._delivering = self._progress.add_task("delivering", total=0)
        else:
            self._say(f"Reading {counted(count, 'document')}.")

    def extracted(self, line: Line) -> None:
        with self._lock:
            self._read += 1
            self._committed += line.is_new
            self._show()

    def skipped(self, skipped: Skipped) -> None:
        with self._lock:
            self._read += 1
            if not _is_stranger(skipped):
                self._skipped += 1
                if self._skipped <= SKIPPED_SHOWN:
                    self._say(f"Skipped {skipped}")
            self._show()

    def delivered(self, count: int) -> None:
        with self._lock:
            self._delivered = count
            self._show()

    def _show(self) -> None:
        if self._console.is_terminal:
            self._progress.update(self._extracting, completed=self._read)
            if self._deliveries:
                self._progress.update(self._delivering, completed=self._delivered, total=self._committed)
        elif time.monotonic() - self._said_at > PLAIN_EVERY_S:
            self._said_at = time.monotonic()
            delivered = f", delivered {self._delivered:,} of {self._committed:,}" if self._deliveries else ""
            self._say(f"Read {self._read:,} of {self._count:,}{delivered}.")

    def _say(self, message: str) -> None:
        self._console.print(message, soft_wrap=True)


def report(found: Report, *, expand: bool = False) -> RenderableType:
    """Return the table of documents, as wide as the terminal if there is one, and the sum."""
    parts: list[RenderableType] = []
    if found.lines:
        parts += [_table(found.lines, expand=expand), ""]
    parts += [Text(line) for line in summary(found)]
    return Group(*parts)


def summary(found: Report) -> list[str]:
    """Return what happened, in numbers that add up."""
    total = len(found.lines) + len(found.skipped)
    lines = [
        f"{counted(total, 'document')}: {found.committed:,} extracted, {found.known:,} already known, "
        f"{len(found.skipped):,} skipped."
    ]
    if found.lines and not found.committed:
        lines.append("Everything is already known and unchanged, so there was nothing to extract and nothing to send.")
    lines.append(
        f"{counted(found.committed, 'message')} committed = {found.delivered:,} delivered, "
        f"{found.waiting:,} waiting, {found.dead:,} dead."
    )
    took = sorted(line.delivered_after_s for line in found.lines if line.delivered_after_s is not None)
    if took:
        lines.append(f"From commit to delivery: {_time(median(took))} in the median, {_time(took[-1])} at most.")
    if found.earlier:
        lines.append(f"{counted(found.earlier, 'message')} of earlier runs delivered as well.")
    return lines


def extraction_summary(found: Report) -> list[str]:
    """Return the summary of a run without a relay."""
    waits = f"{counted(found.committed, 'message')} committed" + (
        "; a relay delivers them." if found.committed else "."
    )
    return [*skipped_together(found), summary(found)[0], waits]


def as_text(line: Line) -> str:
    """Return one extracted document as a line."""
    news = line.message_id or "known already"
    return f"{line.document.id}  {counted(line.topics, 'topic')}  {news}  {line.document.title}"


def as_fields(line: Line) -> dict[str, Any]:
    """Return one extracted document as fields for scripts; without a message id it was known already."""
    fields = {"content_id": line.document.id, "title": line.document.title, "topics": line.topics}
    return fields | {"message_id": line.message_id}


def skipped_together(found: Report) -> list[str]:
    """Return lines that count skipped files: a folder full of pictures does not fill the screen."""
    strangers = [PurePath(each.source).name for each in found.skipped if _is_stranger(each)]
    more = len(found.skipped) - len(strangers) - SKIPPED_SHOWN
    lines = [f"Skipped {more:,} more."] if more > 0 else []
    if strangers:
        names = ", ".join([*strangers[:STRANGERS_SHOWN], *(["…"] if len(strangers) > STRANGERS_SHOWN else [])])
        lines.append(
            f"Skipped {counted(len(strangers), 'file')} of other kinds than .txt, .md, .html and .pdf: {names}"
        )
    return lines


def _is_stranger(skipped: Skipped) -> bool:
    """Return whether the file was only found in a folder and is of a kind that the demo does not read."""
    return skipped.reason is SkipReason.UNSUPPORTED and not skipped.named


def _table(lines: Sequence[Line], *, expand: bool) -> RenderableType:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=expand)
    made.add_column("Document", overflow="ellipsis", no_wrap=True, max_width=TITLE_WIDTH)
    made.add_column("Strongest topics", overflow="ellipsis", no_wrap=True, ratio=1, style="dim")
    for title in ("Topics", "Nodes", "Edges", "Delivered in"):
        made.add_column(title, justify="right", no_wrap=True)
    for line in lines[:LINES_SHOWN]:
        title, strongest = _shortened(line.document.title), ", ".join(line.strongest)
        numbers = [str(line.topics), _number(line.nodes), _number(line.edges)]
        made.add_row(Text(title), Text(strongest), *numbers, _delivery(line))
    if len(lines) > LINES_SHOWN:
        made.add_row(Text(f"… and {len(lines) - LINES_SHOWN:,} more", style="dim"))
    return made


def _shortened(title: str) -> str:
    return title if len(title) <= TITLE_WIDTH else title[: TITLE_WIDTH - 1].rstrip() + "…"


def _delivery(line: Line) -> Text:
    if not line.is_new:
        return Text("known", style="dim")
    if line.delivered_after_s is None:
        return Text("waiting", style="red")
    return Text(_time(line.delivered_after_s))


def _time(duration_s: float) -> str:
    return f"{duration_s * 1000:.0f} ms" if duration_s < 1 else f"{duration_s:.1f} s"


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)
