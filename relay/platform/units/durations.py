"""Durations as people write them: ``15``, ``"15s"``, ``"1h30m"``, ``"3d"``; and instants, as dates or as durations."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
DAY_S = UNITS_S["d"]

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern}\s*)+")


def seconds(value: object) -> float:
    """Parse a duration; return seconds.

    Args:
        value: A number of seconds, a ``timedelta``, or text such as ``"15s"``, ``"500ms"``, ``"1h30m"``.

    Raises:
        ValueError: ``value`` is none of these.

    Example:
        >>> seconds("1h30m")
        5400.0
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        return _parse(value.strip().lower())
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError('write a number of seconds, or "15s", "5m", "3d"')
    return float(value)


def instant(text: str) -> datetime:
    """Parse a date with or without a time, in UTC unless it names a zone.

    Raises:
        ValueError: The text is not a date.
    """
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def before(now: datetime, text: str) -> datetime:
    """Parse an instant that is given as a date, or as a duration before `now`.

    Raises:
        ValueError: The text is neither.
    """
    try:
        return instant(text)
    except ValueError:
        pass  # then it is a duration
    try:
        return now - timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        raise ValueError("write 2h, 7d, 2026-03-01 or 2026-03-01T12:30Z") from None


def _parse(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not _WHOLE.fullmatch(text):
        raise ValueError('write a number of seconds, or "15s", "5m", "3d"')
    return sum(float(number) * UNITS_S[unit] for number, unit in _PART.findall(text))


def _days(value: object) -> object:
    """Parse a number of days; text with a unit must come out as whole days."""
    if not isinstance(value, str) or value.strip().isdigit():
        return value
    try:
        days = seconds(value) / DAY_S
    except ValueError:
        days = math.nan
    if not days.is_integer():
        raise ValueError('write a whole number of days, or "7d"')
    return int(days)


def _none_or_seconds(value: Any) -> float | None:
    return None if value is None or (isinstance(value, str) and value.strip().lower() == "none") else seconds(value)


Seconds = Annotated[float, BeforeValidator(seconds)]
SecondsOrNone = Annotated[float | None, BeforeValidator(_none_or_seconds)]
Days = Annotated[int, BeforeValidator(_days)]
