"""The wording of counts and times for people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime


def counted(count: int, one: str) -> str:
    """Return ``1 message``, ``1,200 messages``."""
    return f"{count:,} {one if count == 1 else one + 's'}"


def utc(at: datetime) -> str:
    """Return an instant in UTC, as tables and pages show it and as options accept it."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def duration(seconds: float | None) -> str:
    """Return a duration for people: ``0.4 s``, ``12 s``, ``3 m 20 s``, ``2 d 4 h``."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, next_unit, next_size in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            rest = int(seconds % size // next_size)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{seconds:.0f} s"


def ranges(numbers: Iterable[int]) -> str:
    """Return sorted numbers in a short form: ``0-31, 40``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
