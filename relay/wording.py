"""How counts and times are written, wherever people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 message``, ``1,200 messages``; the plural is given where it does not simply end in s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def utc(at: datetime) -> str:
    """An instant as tables and pages show it, in UTC and saying so; the options that take a time take this too."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
