"""What the demo did: a table, and a sum that can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from outbox_demo.documents import Document, Skipped
from relay.platform.wording import counted

LINES_SHOWN = 60  # documents that fit into the table
SKIPPED_SHOWN = 20
STRANGERS_SHOWN = 3
STRONGEST = 4
TITLE_WIDTH = 28


@dataclass
class Line:
    """The result of one document. If there is no message id, the document was already known."""

    document: Document
    topics: Sequence[str]  # the strongest comes first
    message_id: str | None = None
    nodes: int | None = None
    edges: int | None = None
    delivered_after_s: float | None = None

    def as_text(self) -> str:
        """Return the result for people."""
        news = self.message_id or "known already"
        return f"{self.document.id}  {counted(len(self.topics), 'topic')}  {news}  {self.document.title}"

    def as_fields(self) -> dict[str, Any]:
        """Return the result for scripts."""
        fields = {"content_id": self.document.id, "title": self.document.title, "topics": len(self.topics)}
        return fields | {"message_id": self.message_id}


@dataclass
class Report:
    """What the demo did, in numbers that add up."""

    lines: list[Line] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    dead: int = 0

    @property
    def new(self) -> dict[str, Line]:
        """The documents that were extracted now, by the id of their message."""
        return {line.message_id: line for line in list(self.lines) if line.message_id is not None}

    @property
    def delivered_after_s(self) -> list[float]:
        """How long each delivered message took, in seconds, sorted."""
        return sorted(line.delivered_after_s for line in self.lines if line.delivered_after_s is not None)

    @property
    def waiting(self) -> int:
        return len(self.new) - len(self.delivered_after_s) - self.dead

    @property
    def fell_short(self) -> bool:
        """Return whether no file or not every named file could be read. A skipped file in a folder is not a failure."""
        return any(skipped.named for skipped in self.skipped) or bool(self.skipped and not self.lines)

    @property
    def extracted(self) -> str:
        """What was read, in words."""
        total, known = len(self.lines) + len(self.skipped), len(self.lines) - len(self.new)
        return (
            f"{counted(total, 'document')}: {len(self.new):,} extracted, {known:,} already known, "
            f"{len(self.skipped):,} skipped."
        )

    @property
    def not_read(self) -> list[str]:
        """What was skipped, in words, kept short: a folder full of pictures must not fill the screen."""
        strangers = [PurePath(each.source).name for each in self.skipped if each.is_stranger]
        others = [each for each in self.skipped if not each.is_stranger]
        lines = [f"Skipped {each}" for each in others[:SKIPPED_SHOWN]]
        if len(others) > SKIPPED_SHOWN:
            lines.append(f"Skipped {len(others) - SKIPPED_SHOWN:,} more.")
        if strangers:
            names = ", ".join([*strangers[:STRANGERS_SHOWN], *(["…"] if len(strangers) > STRANGERS_SHOWN else [])])
            lines.append(
                f"Skipped {counted(len(strangers), 'file')} of other kinds than .txt, .md, .html and .pdf: {names}"
            )
        return lines


def rendered(report: Report, *, expand: bool) -> RenderableType:
    """Return the table of documents, as wide as the terminal if there is one, and the sum."""
    table: list[RenderableType] = [_table(report.lines, expand=expand), ""] if report.lines else []
    return Group(*table, *map(Text, _summary(report)))


def _summary(report: Report) -> list[str]:
    took = report.delivered_after_s
    lines = [report.extracted]
    if report.lines and not report.new:
        lines.append("Everything is already known and unchanged, so there was nothing to extract and nothing to send.")
    lines.append(
        f"{counted(len(report.new), 'message')} committed = {len(took):,} delivered, "
        f"{report.waiting:,} waiting, {report.dead:,} dead."
    )
    if took:
        lines.append(f"From commit to delivery: {_time(median(took))} in the median, {_time(took[-1])} at most.")
    return lines


def _table(lines: Sequence[Line], *, expand: bool) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=expand)
    made.add_column("Document", overflow="ellipsis", no_wrap=True, max_width=TITLE_WIDTH)
    made.add_column("Strongest topics", overflow="ellipsis", no_wrap=True, ratio=1, style="dim")
    for title in ("Topics", "Nodes", "Edges", "Delivered in"):
        made.add_column(title, justify="right", no_wrap=True)
    for line in lines[:LINES_SHOWN]:
        strongest = Text(", ".join(line.topics[:STRONGEST]))
        numbers = ["–" if number is None else str(number) for number in (line.nodes, line.edges)]
        made.add_row(Text(line.document.title), strongest, str(len(line.topics)), *numbers, _delivery(line))
    if len(lines) > LINES_SHOWN:
        made.add_row(Text(f"… and {len(lines) - LINES_SHOWN:,} more", style="dim"))
    return made


def _delivery(line: Line) -> Text:
    if line.message_id is None:
        return Text("known", style="dim")
    if line.delivered_after_s is None:
        return Text("waiting", style="red")
    return Text(_time(line.delivered_after_s))


def _time(duration_s: float) -> str:
    return f"{duration_s * 1000:.0f} ms" if duration_s < 1 else f"{duration_s:.1f} s"
