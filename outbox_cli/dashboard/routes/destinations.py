"""List, pause, resume and test destinations, and replay messages to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import sqlalchemy as sa
from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from outbox.errors import OutboxError
from outbox_cli.dashboard.access import Person
from outbox_cli.dashboard.facts.overview import DestinationView
from outbox_cli.dashboard.facts.searching import InvalidSearch, instant
from outbox_cli.dashboard.jobs import Job, Tell
from outbox_cli.dashboard.routes.answering import ChangeForm, Done, TheSite, change, page
from outbox_cli.dashboard.routes.dead import letters_of
from outbox_cli.dashboard.site import Site
from relay.admin.access.deadline import TooMuch
from relay.admin.access.queries import now
from relay.admin.audit import acting_as
from relay.admin.destinations.listing import names, pause, resume
from relay.admin.destinations.probe import probe
from relay.admin.destinations.registration import Registration, differences
from relay.admin.messages.dead import Cause, DeadFilter
from relay.admin.messages.replay import Found, Replay, look, replay
from relay.destinations.kind import Probed
from relay.platform.wording import counted

router = APIRouter()

RATE = 200.0
TOO_MANY = "There are too many messages to count here. Choose a shorter time, or use `outbox replay`."
CAUSES_SHOWN = 10


@dataclass(frozen=True)
class Destinations:
    """All destinations.

    Args:
        differences: How this host's configuration differs: a relay that is started here would be refused.
    """

    at: datetime
    destinations: list[DestinationView]
    differences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DestinationPage:
    """One destination.

    Args:
        causes: The most common causes of its dead letters.
        among: How many of the latest dead letters were examined for them; ``None``: all.
    """

    at: datetime
    destination: DestinationView
    causes: list[Cause]
    among: int | None = None


@dataclass(frozen=True, kw_only=True)
class Tested(Probed):
    """The result of testing a destination."""

    name: str


class Plan(BaseModel):
    """The question about a replay; without `to`, nothing has been asked yet."""

    to: str = ""
    type: str = "*"
    since: str | None = ""
    until: str | None = ""
    rate: float = Field(default=RATE, ge=0.1, le=100_000)
    as_new: bool = False


class Planned(Plan):
    """A replay that was planned and not begun.

    Args:
        trouble: Why the query was not run.
        found: The messages that would be sent, by type; ``None`` until the query runs.
    """

    destinations: list[str]
    found: list[Found] | None = None
    trouble: str | None = None

    @property
    def count(self) -> int:
        """The count of these messages."""
        return sum(each.count for each in self.found or ())

    @property
    def marked(self) -> int:
        """The count of those that the destination's inbox has marked."""
        return sum(each.marked for each in self.found or ())


class DestinationForm(ChangeForm):
    """A change of one destination."""

    name: str = Field(max_length=63)


class Pause(DestinationForm):
    """Make all relays start no more attempts at a destination."""


class Resume(DestinationForm):
    """Make all relays try a destination again, after a pause or a switch-off."""


class Replayed(ChangeForm, Plan):
    """Send settled messages again to one destination."""

    to: str


def destinations(site: TheSite) -> Destinations:
    """Return the destinations: state, reason, time, outlook, and waiting messages."""
    found = site.picture()
    return Destinations(found.at, found.destinations, _differences(site))


def destination_page(site: TheSite, name: str) -> DestinationPage | None:
    """Return one destination: state, reason, time, outlook, waiting messages, and the causes of its dead letters."""
    found = site.picture()
    view = next((each for each in found.destinations if each.name == name), None)
    if view is None:
        return None
    which = DeadFilter(destination=name)
    dead = letters_of(site, which) if view.dead else None
    return DestinationPage(found.at, view, dead.causes[:CAUSES_SHOWN] if dead else [], dead.among if dead else None)


def _differences(site: Site) -> list[str]:
    if site.load_settings is None:
        return []
    try:
        configured = site.load_settings().destinations
    except OutboxError:
        return []  # this host lacks what the destinations need; other hosts may have it
    here = [Registration(name, each.kind, tuple(each.events), each.on_dead) for name, each in configured.items()]
    return site.reader.ask("differences", lambda connection: differences(connection, here))


def tested(site: TheSite, name: str) -> Tested | None:
    """Test whether a destination can be reached with the settings of this host. No message is sent."""
    if site.load_settings is None:
        return None
    try:
        settings = site.load_settings()
        if name not in settings.destinations:
            known = ", ".join(sorted(settings.destinations)) or "none"
            said = f"it is not configured on this host; configured: {known}"
            return Tested(False, said, "the configuration", name=name)
        found = asyncio.run(probe(name, settings))
    except OutboxError as error:
        return Tested(False, str(error), "the configuration", name=name)
    return Tested(**vars(found), name=name)


def planned(site: TheSite, plan: Annotated[Plan, Query()]) -> Planned:
    """Return the messages that a replay would send again; nothing is sent."""
    asked = Planned(**plan.model_dump(), destinations=site.reader.ask("names", names))
    if asked.to:
        try:
            asked.found = _found(site, asked)
        except TooMuch:
            asked.trouble = TOO_MANY
        except (InvalidSearch, OutboxError) as error:
            asked.trouble = str(error)
    return asked


def _found(site: Site, asked: Plan) -> list[Found]:
    """Return the messages that would be sent, by type."""
    key = ("replay", asked.to, asked.type, asked.since, asked.until)
    return site.reader.ask(key, lambda connection: look(connection, _asked(connection, asked)))


def _asked(connection: sa.Connection, asked: Plan) -> Replay:
    at = now(connection)
    begin = instant("since", asked.since, at) if asked.since else None
    end = instant("until", asked.until, at) if asked.until else None
    return Replay(asked.to, asked.type or "*", begin, end, asked.as_new)


def _pause(site: Site, person: Person, told: Pause) -> tuple[Done, str]:
    return _changed(site, person, told, pause, "paused")


def _resume(site: Site, person: Person, told: Resume) -> tuple[Done, str]:
    return _changed(site, person, told, resume, "resumed")


def _changed(
    site: Site, person: Person, told: DestinationForm, change: Callable[..., None], done: str
) -> tuple[Done, str]:
    try:
        with acting_as(person.name):
            change(site.reader.engine, told.name, reason=told.reason)
    except OutboxError as error:
        raise HTTPException(422, str(error)) from None
    return Done(f"{told.name} is {done}"), f"/destinations/{quote(told.name, safe='')}"


def _begin_replay(site: Site, person: Person, told: Replayed) -> tuple[Done, str]:
    try:
        with site.reader.connected() as connection:
            what = _asked(connection, told)
        count = sum(each.count for each in _found(site, told))
    except (InvalidSearch, OutboxError) as error:
        raise HTTPException(422, str(error)) from None

    def work(tell: Tell) -> int:
        return replay(site.reader.engine, what, rate=told.rate, reason=told.reason, on_progress=tell)

    job = site.jobs.begin(Job("replay", count, person.name, "/replay"), work)
    return Done(f"Replaying {counted(count, 'message')} to {told.to}", job), "/replay"


page(router, "/destinations", "destinations.html", destinations)
page(router, "/destinations/{name}", "destination.html", destination_page)
page(router, "/destinations/{name}/test", "tested.html", tested)
page(router, "/replay", "replay.html", planned)
change(router, "/destinations/{name}/pause", Pause, _pause)
change(router, "/destinations/{name}/resume", Resume, _resume)
change(router, "/replay", Replayed, _begin_replay)
