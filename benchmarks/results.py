"""Save what each line measured in a JSON file, so that lines can be run one at a time and rounds added later."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Ratio:
    """A figure that has a target.

    Args:
        name: The two things that are compared, or the one that is measured.
        value: What was measured.
        target: What was wanted.
        at_most: Whether less is better.
        unit: ``"×"`` for a ratio.
    """

    name: str
    value: float
    target: float | None = None
    at_most: bool = False
    unit: str = "×"

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass
class Result:
    """One line of the table.

    Args:
        line: Its number.
        title: What is measured.
        ran: On what, how much, how long.
        rounds: By name, what each round measured; values with a unit in ``units`` are not messages/s.
        units: By name.
        ratios: The figures with targets, made of the medians.
        series: By name, points (x, y) to plot.
        notes: What a reader has to know.
        missing: What could not be run, and why.
    """

    line: int
    title: str
    ran: dict[str, Any] = field(default_factory=dict)
    rounds: dict[str, list[float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    axes: tuple[str, str] = ("", "")
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str = "messages/s") -> None:
        """Add the measurement of one round."""
        self.rounds.setdefault(name, []).append(value)
        self.units[name] = unit

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def has(self, *names: str) -> bool:
        return all(self.rounds.get(name) for name in names)

    def compare(
        self,
        name: str,
        over: str,
        under: str,
        target: float | None = None,
        *,
        at_most: bool = False,
        scale: float = 1.0,
    ) -> None:
        """Compare two medians: add their ratio times `scale`, if both were measured."""
        if self.has(over, under):
            self.ratios.append(Ratio(name, self.median(over) / self.median(under) * scale, target, at_most))

    def want(self, name: str, target: float, *, at_most: bool = False) -> None:
        """Set a target for a median."""
        if self.has(name):
            self.ratios.append(Ratio(name, self.median(name), target, at_most, self.units[name]))

    # -------------------------------------------------------------------- keeping

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _path(folder, self.line).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


def saved(folder: Path, line: int) -> Result | None:
    """Return the saved result of a line, or ``None``."""
    path = _path(folder, line)
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    kept["ratios"] = [Ratio(**each) for each in kept["ratios"]]
    kept["series"] = {name: [(x, y) for x, y in points] for name, points in kept["series"].items()}
    kept["axes"] = tuple(kept["axes"])
    return Result(**kept)


def _path(folder: Path, line: int) -> Path:
    return folder / f"line-{line:02}.json"
