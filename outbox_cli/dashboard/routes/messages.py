"""Messages: searched, and shown."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query

from outbox_cli.dashboard.facts.life import Life, life
from outbox_cli.dashboard.facts.messages import STATES, Found, find, find_latest
from outbox_cli.dashboard.facts.searching import InvalidSearch, Search, is_id, parse
from outbox_cli.dashboard.reader import EXACT_S
from outbox_cli.dashboard.routes.answering import TheSite, page
from relay.admin.access.deadline import TooMuch
from relay.admin.access.queries import now
from relay.admin.messages.redaction import Redaction

router = APIRouter()

TOO_MANY = "There are too many messages to search. Add since:1h, or another filter."


def messages(site: TheSite, q: Annotated[str, Query(max_length=1000)] = "") -> Found:
    """Return the newest messages that match a search, and the count in each state of the whole outbox."""
    try:
        search = site.reader.ask(("search", q), lambda connection: parse(q, now(connection)))
    except InvalidSearch as error:
        return Found(Search(q), {}, [], trouble=str(error))
    status = site.picture().status
    counts: dict[str, int | None] = {state: getattr(status, state, None) for state in STATES}
    if search.id is not None:
        return Found(search, counts, [])
    about_all, about_latest = partial(find, search=search), partial(find_latest, search=search)
    try:
        found = site.reader.ask_or(("messages", q), about_all, about_latest, timeout_s=site.patience_s(EXACT_S))
    except TooMuch:
        return Found(search, counts, [], trouble=TOO_MANY)
    return replace(found, counts=counts)


def message(site: TheSite, id: str) -> Life | None:
    """Return one message: what happened to it, what it waits for, and what comes next."""
    redaction = Redaction(site.settings.redact)
    return site.reader.ask(("message", id), lambda connection: life(connection, id, redaction)) if is_id(id) else None


def _elsewhere(found: Found) -> str | None:
    """Return the message's page if an id is searched."""
    return f"/messages/{found.search.id}" if found.search.id else None


page(router, "/messages", "messages.html", messages, elsewhere=_elsewhere)
page(router, "/messages/{id}", "message.html", message)
