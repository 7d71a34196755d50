"""Options that several commands have, and the parsers of their values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

T = TypeVar("T")


def text(given: str) -> str:
    """Return a text; refuse an empty one, as from an unset shell variable: some options would choose everything.

    Raises:
        BadParameter: The text is empty.
    """
    if not given:
        raise typer.BadParameter("it is empty: give a value, or leave it out")
    return given


def uuid_of(given: str) -> str:
    """Return a message's id in the form in which we write ids.

    Raises:
        BadParameter: The text is not a UUID.
    """
    try:
        return str(UUID(given))
    except ValueError:
        raise typer.BadParameter(f"{given} is not the id of a message: ids are UUIDs") from None


def duration(given: str) -> float:
    """Return a duration in seconds.

    Raises:
        BadParameter: The text is not a duration.
    """
    from relay.platform.units.durations import seconds

    return _parsed(given, seconds)


def instant(given: str) -> datetime:
    """Return an instant that is given as a date with or without a time, in UTC unless it names a zone.

    Raises:
        BadParameter: The text is not a date.
    """
    from relay.platform.units.durations import instant

    return _parsed(given, instant, "write 2026-03-01 or 2026-03-01T12:30Z")


def past(given: str) -> datetime:
    """Return an instant in the past, given as a duration or a date.

    Raises:
        BadParameter: The text is neither.
    """
    from relay.platform.units.durations import before

    return _parsed(given, partial(before, datetime.now(UTC)))


def _parsed(given: str, parse: Callable[[str], T], remedy: str | None = None) -> T:
    try:
        return parse(given)
    except ValueError as error:
        raise typer.BadParameter(f"{given}: {remedy or error}") from None


def lasting(help_: str, *names: str) -> Any:
    """Return an option that takes a duration."""
    return typer.Option(*names, parser=duration, metavar="DURATION", help=help_)


HealthHost = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="The address of the health pages; default: this machine only.")
]
HealthPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65_535,
        help="The port of /healthz, /readyz, /metrics; 0: no pages. Default: health_port; without it a relay has 9810, "
        "and consume has no pages.",
    ),
]

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", parser=uuid_of, help="The ids of messages.")]
Key = Annotated[str | None, typer.Option(parser=text, help="Only this ordering key.")]
Subject = Annotated[str | None, typer.Option(parser=text, help="Only this subject; * stands for any text.")]
Type = Annotated[str | None, typer.Option("--type", parser=text, help="Only this event type; * stands for any text.")]
Destination = Annotated[str | None, typer.Option(parser=text, help="Only for this destination.")]
Since = Annotated[
    datetime | None,
    typer.Option(
        parser=past,
        metavar="WHEN",
        help="Settled (or, if not settled, created) at this time or later: 2h, 7d, 2026-03-01, 2026-03-01T12:30Z.",
    ),
]
Until = Annotated[
    datetime | None,
    typer.Option(parser=past, metavar="WHEN", help="Settled (or, if not settled, created) before this time."),
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="The number of lines, the latest first.")]
All = Annotated[bool, typer.Option("--all", help="Select everything; needed if there is no filter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Reason = Annotated[str | None, typer.Option("--reason", help="For the record: `outbox audit` shows it.")]
