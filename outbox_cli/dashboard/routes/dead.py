"""Dead letters: listed by cause, and retried, discarded, or sent again with other data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field, model_validator

from outbox_cli.dashboard.access import Person
from outbox_cli.dashboard.facts.letters import LATEST, Letters, dead_count, letters
from outbox_cli.dashboard.facts.life import Life, life
from outbox_cli.dashboard.facts.searching import is_id
from outbox_cli.dashboard.jobs import Job, Tell
from outbox_cli.dashboard.reader import EXACT_S
from outbox_cli.dashboard.routes.answering import ChangeForm, Done, TheSite, change, page
from outbox_cli.dashboard.site import Site
from relay.admin.messages.dead import DeadFilter, discard, retry
from relay.admin.messages.editing import merged, retry_edited
from relay.admin.messages.redaction import Redaction
from relay.platform.wording import counted

router = APIRouter()
Verb = Literal["retry", "discard", "edit"]
T = TypeVar("T")
SAYING: dict[str, str] = {"retry": "Retrying", "discard": "Discarding", "edit": "Sending again, edited,"}


class Selection(BaseModel):
    """The choice of dead letters. All given conditions must hold; `all` if there are none."""

    id: str | None = Field(default=None, max_length=64)
    destination: str | None = Field(default=None, min_length=1)
    type: str | None = Field(default=None, min_length=1)
    because: str | None = Field(default=None, min_length=1)
    cause: str | None = Field(default=None, min_length=1)
    all: bool = False

    def filter(self) -> DeadFilter:
        if self.id is not None and not is_id(self.id):
            raise HTTPException(422, f"{self.id} is not an id: ids are UUIDs")
        ids = (self.id,) if self.id else ()
        return DeadFilter(ids, self.destination, self.type, reason=self.because, fingerprint=self.cause)

    def required(self) -> DeadFilter:
        found = self.filter()
        if not found.as_dict() and not self.all:
            raise HTTPException(422, "no dead letters are chosen: give a filter, or all")
        return found


class Filters(Selection):
    """The choice in an address. The form of a page sends its empty fields, too; they count as not given."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value != ""}


class Retry(ChangeForm, Selection):
    """Deliver dead letters after all."""


class Discard(ChangeForm, Selection):
    """Give up dead letters for good."""


class Edit(ChangeForm, Selection):
    """Send dead letters again with other data, as new messages. Give `data` for one, or a merge `patch` for many."""

    data: str | None = None
    patch: str | None = None


@dataclass(frozen=True)
class Question:
    """A change that needs confirmation, and its count.

    Args:
        count: The count of dead letters; if `among` is given, only among the latest ones.
        among: How many of the latest dead letters were examined, so that more may match; ``None``: all.
        which: The filters, as fields of the form.
        message: The message to edit, if there is one.
    """

    verb: Verb
    count: int
    which: dict[str, str]
    message: Life | None = None
    among: int | None = None


def dead(site: TheSite, asked: Annotated[Filters, Query()]) -> Letters:
    """Return dead letters by cause, and the latest letters of one cause."""
    return letters_of(site, asked.filter())


def letters_of(site: Site, which: DeadFilter) -> Letters:
    """Return the dead letters by cause; if that takes too long, only among the latest."""
    return _of_all_or_latest(site, letters, which)


def question(site: TheSite, verb: Verb, asked: Annotated[Filters, Query()]) -> Question:
    """Return what a change would do, and to how many dead letters; nothing is changed."""
    which, id_ = asked.required(), asked.id
    fields = {name: str(value) for name, value in asked.model_dump(exclude_none=True, exclude={"all"}).items()}
    fields |= {"all": "true"} if asked.all else {}
    count, among = _matching(site, which)
    redaction = Redaction(site.settings.redact)
    shown = site.reader.ask(("message", id_), lambda c: life(c, id_, redaction)) if id_ and verb == "edit" else None
    return Question(verb, count, fields, shown, among)


def _matching(site: Site, which: DeadFilter) -> tuple[int, int | None]:
    """Return the count; if counting takes too long, count only among the latest."""
    return _of_all_or_latest(site, dead_count, which)


def _of_all_or_latest(site: Site, question: Callable[..., T], which: DeadFilter) -> T:
    about_all = partial(question, which=which)
    about_latest = partial(question, which=which, among=LATEST)
    key = (question.__name__, which)
    return site.reader.ask_or(key, about_all, about_latest, timeout_s=site.patience_s(EXACT_S))


def _retry(site: Site, person: Person, told: Retry) -> tuple[Done, str]:
    return _begin(site, person, "retry", told, retry)


def _discard(site: Site, person: Person, told: Discard) -> tuple[Done, str]:
    return _begin(site, person, "discard", told, discard)


def _edit(site: Site, person: Person, told: Edit) -> tuple[Done, str]:
    edit = _editing(told, Redaction(site.settings.redact))
    return _begin(site, person, "edit", told, partial(retry_edited, edit=edit))


def _editing(told: Edit, redaction: Redaction) -> Any:
    """Return the function that changes data: replaces it, for one message, or patches it."""
    if (told.data is None) == (told.patch is None):
        raise HTTPException(422, "give either data or patch")
    if told.data is not None and told.id is None:
        raise HTTPException(422, "data is for one message: give its id, or give a patch")
    try:
        given = json.loads(told.data if told.data is not None else told.patch or "")
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"this is not JSON: {error}") from None
    if told.data is not None:
        return partial(redaction.restored, given)
    return lambda data: merged(data, given)


def _begin(
    site: Site, person: Person, doing: str, told: Retry | Discard | Edit, change: Callable[..., int]
) -> tuple[Done, str]:
    which = told.required()
    count, among = _matching(site, which)
    back = f"/messages/{told.id}" if told.id else "/dead"
    is_least = among is not None

    def work(tell: Tell) -> int:
        return change(site.reader.engine, which, reason=told.reason, on_progress=tell)

    job = site.jobs.begin(Job(doing, count, person.name, back, is_least=is_least), work)
    least = "at least " if is_least else ""
    return Done(f"{SAYING[doing]} {least}{counted(count, 'dead letter')}", job), back


def job(site: TheSite, id: str) -> Job | None:
    """Return the progress of a change."""
    return site.jobs.find(id)


page(router, "/dead", "dead.html", dead)
page(router, "/dead/{verb}", "question.html", question)
page(router, "/jobs/{id}", "job.html", job)
change(router, "/dead/retry", Retry, _retry)
change(router, "/dead/discard", Discard, _discard)
change(router, "/dead/edit", Edit, _edit)
