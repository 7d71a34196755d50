"""Parse times as people write them: in UTC unless they name a zone, like all our output."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import typer


def duration_s(option: str, text: str) -> float:
    """Return a duration in seconds.

    Raises:
        BadParameter: The text is not a duration.
    """
    from relay.platform.units.durations import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: {error}") from None


def instant(option: str, text: str) -> datetime:
    """Return an instant, given as a date with or without a time.

    Raises:
        BadParameter: The text is not a date.
    """
    at = _date(text)
    if at is None:
        raise typer.BadParameter(f"{option} {text}: write 2026-03-01 or 2026-03-01T12:30Z")
    return at


def past_instant(option: str, text: str) -> datetime:
    """Return an instant in the past, given as a duration or a date.

    Raises:
        BadParameter: The text is neither.
    """
    from relay.platform.units.durations import seconds

    if (at := _date(text)) is not None:
        return at
    try:
        return datetime.now(UTC) - timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{option} {text}: write 2h, 7d, 2026-03-01 or 2026-03-01T12:30Z") from None


def _date(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
