"""Messages: counts by state, search results, and the life of one message."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from outbox.tables import tables
from outbox_cli.dashboard.facts.searching import Search
from relay.admin.access.queries import by_index, matches, since
from relay.admin.messages.detail import DeliveryRow, MessageDetail, show_message
from relay.admin.messages.listing import MessageRow, list_messages
from relay.admin.messages.outcomes import OUTCOMES
from relay.admin.messages.redaction import Redaction
from relay.decide.verdict import WAITING, State

LIMIT = 50
COUNT_AT_MOST = 10_000  # beyond this, a page shows "more than"
LINKS = 8  # messages of a key that are shown before and after a message
CHAIN_ROWS = 2_000  # rows of the shard that are read to find them

Tone = Literal["good", "warn", "bad", "quiet"]


@dataclass(frozen=True)
class Count:
    """The count of messages in a state.

    Args:
        state: The state, as in the search; empty: every message that is not settled.
        count: The count, at most `COUNT_AT_MOST`.
        is_more: Whether there are more.
    """

    state: str
    count: int
    is_more: bool = False


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Args:
        trouble: Why the search was not run, or not completely.
        is_limited: Whether there may be more messages than are shown.
    """

    search: Search
    counts: list[Count]
    messages: list[MessageRow]
    is_limited: bool = False
    trouble: str | None = None


COUNTED = tuple(state for state in State if state not in WAITING)


def counts(connection: sa.Connection, search: Search) -> list[Count]:
    """Count the messages that match the other filters, by state.

    A count stops at `COUNT_AT_MOST`. Of the history, only messages that were not delivered are counted; the list of the
    page shows the others. The filter of the destination is left out, because no column holds it.
    """
    return [_count(connection, search, state) for state in COUNTED]


def _count(connection: sa.Connection, search: Search, state: str) -> Count:
    t = tables()
    if state in OUTCOMES:
        h = t.history
        where = [h.c.outcome.is_(None) if state == State.DELIVERED else h.c.outcome == state]
        query = (
            sa.select(sa.literal(1)).select_from(h).where(*where, *_filters(connection, search, h, h.c.delivered_at))
        )
    elif state == State.DEAD:
        d = t.delivery
        source = d.join(t.message, t.message.c.id == d.c.message_id) if _needs_message(search) else d
        query = sa.select(sa.literal(1)).select_from(source).where(d.c.state == State.DEAD)
        if search.destination:
            query = query.where(d.c.destination == search.destination)
        if _needs_message(search):
            query = query.where(*_filters(connection, search, t.message, t.message.c.created_at))
    else:
        m = t.message
        query = sa.select(sa.literal(1)).select_from(m).where(m.c.state == state)
        query = query.where(*_filters(connection, search, m, m.c.created_at))
    limited = query.limit(COUNT_AT_MOST + 1).subquery()
    count = connection.scalar(sa.select(sa.func.count()).select_from(limited)) or 0
    return Count(state, min(count, COUNT_AT_MOST), count > COUNT_AT_MOST)


def _needs_message(search: Search) -> bool:
    return any(each is not None for each in (search.type, search.key, search.subject, search.since, search.until))


def _filters(connection: sa.Connection, search: Search, table: sa.Table, at: sa.ColumnElement[Any]) -> list[Any]:
    c, found = table.c, []
    if search.type is not None:
        found.append(matches(c.type, search.type))
    if search.key is not None:
        found.append(c.ordering_key == search.key)
    if search.subject is not None:
        found.append(matches(c.subject, search.subject))
    if search.since is not None:
        found.append(since(connection, at, search.since))
    if search.until is not None:
        found.append(~since(connection, at, search.until))
    return found


def find(connection: sa.Connection, search: Search) -> list[MessageRow]:
    """Return the newest messages that match a search."""
    return list_messages(
        connection,
        state=search.state,
        type_=search.type,
        key=search.key,
        subject=search.subject,
        destination=search.destination,
        since=search.since,
        until=search.until,
        limit=LIMIT,
    )


# --------------------------------------------------------------------------------------------------------- one message


@dataclass(frozen=True)
class Moment:
    """An event in the life of a message, past or to come.

    Args:
        at: Its time; ``None`` if unknown.
        tone: Whether it is good or bad.
        title: The event, in a few words.
        detail: More information.
        answer: The destination's answer.
        is_to_come: Whether it has not happened yet.
    """

    at: datetime | None
    tone: Tone
    title: str
    detail: str = ""
    answer: str = ""
    is_to_come: bool = False


@dataclass(frozen=True)
class Link:
    """A message of the same ordering key.

    Args:
        state: Its state.
        is_this: Whether it is the message that is shown.
    """

    id: str
    type: str
    state: str
    is_this: bool = False


@dataclass(frozen=True)
class Life:
    """All information about one message.

    Args:
        timeline: Its events, the oldest first, and what comes next.
        chain: The unsettled messages of its key around it, in their order.
        data_json: Its data, formatted for people.
    """

    detail: MessageDetail
    timeline: list[Moment]
    chain: list[Link] = field(default_factory=list)
    data_json: str = ""

    @property
    def dead_at(self) -> list[str]:
        """The destinations for which it is a dead letter."""
        return [each.destination for each in self.detail.deliveries if each.state == State.DEAD]


def life(connection: sa.Connection, id_: str, redaction: Redaction) -> Life | None:
    """Return all information about a message; ``None`` if it neither waits nor is in the history.

    Args:
        connection: A connection with a snapshot.
        id_: The message's id.
        redaction: The payload that is masked.
    """
    found = show_message(connection, id_)
    if found is None:
        return None
    detail = redaction.detail(found)
    chain = _chain(connection, detail) if detail.message.ordering_key is not None and detail.shard is not None else []
    return Life(detail, _timeline(detail), chain, json.dumps(detail.data, ensure_ascii=False, indent=2))


def _timeline(detail: MessageDetail) -> list[Moment]:
    message = detail.message
    happened = [Moment(message.created_at, "quiet", "Emitted", f"by {detail.source}")]
    happened += [moment for each in detail.before for moment in _past(each, " (before it was sent again)")]
    happened += [moment for each in detail.deliveries for moment in _past(each, "")]
    happened += [Moment(at, "good", f"Done at {name}", "marked in its inbox") for name, at in detail.inbox.items()]
    happened.sort(key=lambda moment: moment.at.timestamp() if moment.at else 0)
    return happened + _to_come(detail)


def _past(delivery: DeliveryRow, suffix: str) -> list[Moment]:
    moments = [_attempt(delivery.destination, entry) for entry in delivery.log]
    where = f"{delivery.destination}{suffix}"
    match delivery.state:
        case State.DELIVERED:
            nth = f"attempt {delivery.taken_at_attempt}" if delivery.taken_at_attempt else ""
            moments.append(Moment(delivery.changed_at, "good", f"Delivered to {where}", nth))
        case State.DEAD:
            # Its last attempt says the same, if there is one.
            if not moments:
                moments.append(Moment(delivery.changed_at, "bad", f"Dead letter at {where}", delivery.reason or ""))
        case State.DISCARDED | State.CANCELLED:
            title = f"{delivery.state.capitalize()} for {where}"
            moments.append(Moment(delivery.changed_at, "warn", title, "by an operator"))
        case State.EXPIRED:
            moments.append(Moment(delivery.changed_at, "warn", f"Expired for {where}", delivery.reason or ""))
    return moments


def _attempt(destination: str, entry: Any) -> Moment:
    if not isinstance(entry, dict):
        return Moment(None, "quiet", f"Attempt at {destination}", str(entry))
    verdict = str(entry.get("verdict", ""))
    nth = f"Attempt {entry['attempt']}" if entry.get("attempt") else "Attempt"
    ends = {"dead": "given up: a dead letter", "retry": "failed", "delivered": "taken"}
    tone: Tone = "bad" if verdict == State.DEAD else "good" if verdict == State.DELIVERED else "warn"
    return Moment(
        _at(entry.get("at")),
        tone,
        f"{nth} at {destination}: {ends.get(verdict, verdict)}",
        str(entry.get("reason") or ""),
        str(entry.get("detail") or ""),
    )


def _to_come(detail: MessageDetail) -> list[Moment]:
    if detail.message.settled_at is not None:
        return []
    waits = [each for each in detail.deliveries if each.state not in OUTCOMES]
    found = [
        Moment(
            each.due_at,
            "bad" if each.state == State.DEAD else "warn" if each.state in (State.BLOCKED, State.RETRY) else "quiet",
            {"dead": f"A dead letter at {each.destination}", "waiting": f"Next: {each.destination}"}.get(
                each.state, f"{each.state.capitalize()} for {each.destination}"
            ),
            each.next or "",
            is_to_come=True,
        )
        for each in waits
    ]
    return found or [Moment(detail.message.due_at, "quiet", "Next", detail.next or "", is_to_come=True)]


def _at(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _chain(connection: sa.Connection, detail: MessageDetail) -> list[Link]:
    """Return its neighbours in its key: all are in its shard, so a walk along the shard's index finds them."""
    m, d = tables().message, tables().delivery.c
    key, shard = detail.message.ordering_key, detail.shard
    place = connection.scalar(sa.select(m.c.position).where(m.c.id == detail.message.id))
    if place is None:
        return []
    by_index(connection)
    columns = (m.c.id, m.c.type, m.c.state, m.c.position, m.c.ordering_key)
    aside = sa.select(*columns).where(
        m.c.id.in_(sa.select(d.message_id).where(d.ordering_key == key, d.state != State.DELIVERED).limit(CHAIN_ROWS))
    )
    ready = sa.select(*columns).where(m.c.shard == shard, m.c.state == State.READY)
    before = ready.where(m.c.position < place).order_by(m.c.position.desc()).limit(CHAIN_ROWS).subquery()
    after = ready.where(m.c.position > place).order_by(m.c.position).limit(CHAIN_ROWS).subquery()
    rows: dict[Any, Any] = {row.id: row for row in connection.execute(aside)}
    for part in (before, after):
        rows |= {r.id: r for r in connection.execute(sa.select(part).where(part.c.ordering_key == key))}
    rows.setdefault(detail.message.id, _Place(detail.message.id, detail.message.type, detail.message.state, place))
    return _links(sorted(rows.values(), key=lambda row: row.position), detail, connection)


@dataclass(frozen=True)
class _Place:
    id: str
    type: str
    state: str
    position: int


def _links(rows: list[Any], detail: MessageDetail, connection: sa.Connection) -> list[Link]:
    from relay.admin.messages.listing import delivery_states

    here = next(index for index, row in enumerate(rows) if str(row.id) == detail.message.id)
    shown = rows[max(here - LINKS, 0) : here + LINKS + 1]
    states = delivery_states(connection, [str(row.id) for row in shown])
    return [
        Link(str(row.id), row.type, _worst(states.get(str(row.id), {})) or row.state, str(row.id) == detail.message.id)
        for row in shown
    ]


def _worst(states: dict[str, str]) -> str | None:
    order = (State.DEAD, State.RETRY, State.BLOCKED, State.PARKED)
    return next((each for each in order if each in states.values()), None)
