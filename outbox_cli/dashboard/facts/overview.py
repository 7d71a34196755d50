"""The overview of the outbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from outbox.tables import SHARD_COUNT
from outbox_cli.dashboard.facts.letters import LATEST
from relay.admin.access.queries import now
from relay.admin.audit import AuditEntry, record
from relay.admin.messages.dead import Cause, DeadFilter, causes
from relay.admin.relays import RelayStatus
from relay.admin.status import DestinationStatus, Status, status, word_of
from relay.admin.timeline.series import Pace, pace
from relay.platform.finding import Finding
from relay.platform.wording import utc

CAUSES_SHOWN, ACTIONS_SHOWN = 5, 6
COUNT_AT_MOST = 100_000  # above this number, unsettled messages are estimated, because a page is reloaded every second
DEAD_AT_MOST = 20_000  # above this number, only the latest dead letters are examined for their causes
COLOURS = 8  # the number of colours by which the map distinguishes relays

Tone = Literal["good", "warn", "bad", "quiet"]
TONES: dict[str, Tone] = {"healthy": "good", "off": "bad", "removed": "bad"}


@dataclass(frozen=True, kw_only=True)
class DestinationView(DestinationStatus):
    """One destination, and its outlook.

    Args:
        tone: Its urgency: ``good``, ``warn`` or ``bad``.
        word: Its state in a word: ``healthy``, ``down``, ``paused``, ``throttled``, ``off`` or ``removed``.
        outlook: What happens next, in a sentence.
    """

    tone: Tone
    word: str
    outlook: str


@dataclass(frozen=True, kw_only=True)
class RelayView(RelayStatus):
    """One living relay.

    Args:
        colour: Its colour on the map.
    """

    colour: int


@dataclass(frozen=True)
class Overview:
    """All data of the front page, taken at one moment by the database's clock.

    Args:
        pace: The recent rates; ``None`` without samples.
        causes_among: How many of the latest dead letters were examined for their causes; ``None``: all.
        shards: The index in `relays` of the owner of each of the 64 shards, or -1.
        findings: The findings of `outbox doctor` that are not ok; ``None`` until its first run has ended.
    """

    database: str
    at: datetime
    status: Status
    pace: Pace | None
    destinations: list[DestinationView]
    relays: list[RelayView]
    shards: list[int]
    causes: list[Cause]
    actions: list[AuditEntry]
    findings: list[Finding] | None = field(default=None)
    causes_among: int | None = None

    @property
    def is_large(self) -> bool:
        """Whether there are too many messages for a page to examine all of them."""
        s = self.status
        return s.waiting + s.dead + s.unrouted + s.delivered + s.discarded + s.cancelled + s.expired > COUNT_AT_MOST

    @property
    def unowned(self) -> int:
        """The count of shards without an owner."""
        return self.shards.count(-1)


def overview(connection: sa.Connection, database: str) -> Overview:
    """Return all data except the doctor's findings.

    Args:
        connection: A connection with a snapshot, so that all numbers are taken at one moment.
        database: The database's name, for people.
    """
    found = status(connection, count_at_most=COUNT_AT_MOST)
    relays = [RelayView(**vars(each), colour=number % COLOURS) for number, each in enumerate(found.relays)]
    at = now(connection)
    among = LATEST if found.dead > DEAD_AT_MOST else None
    return Overview(
        database=database,
        at=at,
        status=found,
        pace=pace(connection, at - timedelta(minutes=1)),
        destinations=destination_views(found),
        relays=relays,
        shards=_owners(relays),
        causes=causes(connection, DeadFilter(), among=among)[:CAUSES_SHOWN] if found.dead else [],
        causes_among=among,
        actions=record(connection, limit=ACTIONS_SHOWN),
    )


def destination_views(found: Status) -> list[DestinationView]:
    """Return the destinations, the most urgent first."""
    order = {"bad": 0, "warn": 1, "good": 2}
    views = [_view(row, found) for row in found.destinations.values()]
    return sorted(views, key=lambda view: (order.get(view.tone, 1), view.name))


def _view(row: DestinationStatus, found: Status) -> DestinationView:
    word = word_of(row)
    return DestinationView(
        **vars(row),
        tone=TONES.get(row.state, "bad" if word == "down" else "warn") if not row.note else "warn",
        word=word,
        outlook=_outlook(row, word, relays=len(found.relays)),
    )


def _outlook(row: DestinationStatus, word: str, *, relays: int) -> str:
    at = f" at {utc(row.until)}" if row.until is not None else ""
    if not relays and word in ("healthy", "down"):
        return "Nothing is sent: no relay is alive. Start one with `outbox relay`."
    match word:
        case "down":
            return f"One message is sent as a probe{at}. If it is taken, all others follow."
        case "paused":
            return "Messages wait until an operator resumes it."
        case "throttled":
            return f"It asked for a pause: sending continues{at}."
        case "off":
            return "It answered that it is gone. It gets nothing until an operator resumes it."
        case "removed":
            return "Configure it and run `outbox relay --apply`, or cancel the messages that wait for it."
    return "Messages are sent as they come." if not row.note else "Messages are sent; failed ones are tried again."


def _owners(relays: list[RelayView]) -> list[int]:
    owners = [-1] * SHARD_COUNT
    for number, relay in enumerate(relays):
        for shard in relay.shards:
            owners[shard] = number
    return owners
