"""What the demo did."""

from __future__ import annotations

from dataclasses import dataclass, field

from outbox_demo.documents import Document, Skipped

LINES_SHOWN = 60  # documents that fit into the table


@dataclass
class Line:
    """The result of one document."""

    document: Document
    topics: int
    strongest: list[str] = field(default_factory=list)
    message_id: str | None = None
    nodes: int | None = None
    edges: int | None = None
    delivered_after_s: float | None = None

    @property
    def is_new(self) -> bool:
        return self.message_id is not None


@dataclass
class Report:
    """What the demo did, in numbers that add up."""

    lines: list[Line] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    delivered: int = 0
    dead: int = 0
    earlier: int = 0  # messages of earlier runs that were delivered in this one

    @property
    def committed(self) -> int:
        return sum(line.is_new for line in self.lines)

    @property
    def known(self) -> int:
        return len(self.lines) - self.committed

    @property
    def fell_short(self) -> bool:
        """Return whether nothing could be read, or a named file could not. A skipped file of a folder is no failure."""
        return any(skipped.named for skipped in self.skipped) or bool(self.skipped and not self.lines)

    @property
    def waiting(self) -> int:
        return self.committed - self.delivered - self.dead
