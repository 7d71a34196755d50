"""Times as people write them: in UTC unless they say otherwise, as everything that we print is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import typer


def duration_s(option: str, text: str) -> float:
    """How long, in seconds.

    Raises:
        BadParameter: It is no duration.
    """
    from relay.platform.units.durations import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: {error}") from None


def instant(option: str, text: str) -> datetime:
    """A date, with or without a time.

    Raises:
        BadParameter: It is none.
    """
    at = _date(text)
    if at is None:
        raise typer.BadParameter(f"{option} {text}: write 2026-03-01 or 2026-03-01T12:30Z")
    return at


def past_instant(option: str, text: str) -> datetime:
    """How long ago, or a date.

    Raises:
        BadParameter: It is neither.
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
