"""The life of one message, for people: its events so far, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from relay.admin.messages.detail import DeliveryRow, MessageDetail
from relay.admin.messages.outcomes import NOBODY, OUTCOMES
from relay.decide.verdict import State

Tone = Literal["good", "warn", "bad", "quiet"]


@dataclass(frozen=True)
class LifeEvent:
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


def timeline(detail: MessageDetail) -> list[LifeEvent]:
    """Return the events of a message, the oldest first, and what comes next."""
    message = detail.message
    happened = [LifeEvent(message.created_at, "quiet", "Emitted", f"by {detail.source}")]
    happened += [moment for each in detail.before for moment in _past(each, " (before it was sent again)")]
    happened += [moment for each in detail.deliveries for moment in _past(each, "")]
    happened += [LifeEvent(at, "good", f"Done at {name}", "marked in its inbox") for name, at in detail.inbox.items()]
    happened.sort(key=lambda moment: moment.at.timestamp() if moment.at else 0)
    return happened + _to_come(detail)


def _past(delivery: DeliveryRow, suffix: str) -> list[LifeEvent]:
    events = [_attempt(delivery.destination, entry) for entry in delivery.log]
    where = f"{delivery.destination}{suffix}"
    match delivery.state:
        case State.DELIVERED:
            nth = f"attempt {delivery.taken_at_attempt}" if delivery.taken_at_attempt else ""
            events.append(LifeEvent(delivery.changed_at, "good", f"Delivered to {where}", nth))
        case State.DEAD:
            # If there is a last attempt, it says the same.
            if not events:
                events.append(LifeEvent(delivery.changed_at, "bad", f"Dead letter at {where}", delivery.reason or ""))
        case State.DISCARDED | State.CANCELLED:
            title = delivery.state.capitalize() + ("" if delivery.destination == NOBODY else f" for {where}")
            events.append(LifeEvent(delivery.changed_at, "warn", title, "by an operator"))
        case State.EXPIRED:
            events.append(LifeEvent(delivery.changed_at, "warn", f"Expired for {where}", delivery.reason or ""))
    return events


def _attempt(destination: str, entry: dict[str, Any]) -> LifeEvent:
    verdict = entry["verdict"]
    nth = f"Attempt {entry['attempt']}" if entry["attempt"] else "Attempt"
    ends = {"dead": "given up: a dead letter", "retry": "failed", "delivered": "taken"}
    tone: Tone = "bad" if verdict == State.DEAD else "good" if verdict == State.DELIVERED else "warn"
    return LifeEvent(
        _at(entry["at"]),
        tone,
        f"{nth} at {destination}: {ends.get(verdict, verdict)}",
        entry["reason"],
        entry.get("detail", ""),
    )


def _to_come(detail: MessageDetail) -> list[LifeEvent]:
    if detail.message.settled_at is not None:
        return []
    waits = [each for each in detail.deliveries if each.state not in OUTCOMES]
    found = [
        LifeEvent(
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
    return found or [LifeEvent(detail.message.due_at, "quiet", "Next", detail.next or "", is_to_come=True)]


def _at(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # a redacted value is part of it
        return None
