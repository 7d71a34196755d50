"""All information about one message."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from relay.admin.messages.detail import MessageDetail, show_message
from relay.admin.messages.life import LifeEvent, timeline
from relay.admin.messages.redaction import Redaction
from relay.databases.store.replay_sql import REPLAY_OF
from relay.decide.verdict import State

WORST = (State.DEAD, State.RETRY, State.BLOCKED, State.PARKED)  # in the order in which they need an operator


@dataclass(frozen=True)
class Life:
    """All information about one message.

    Args:
        timeline: Its events, the oldest first, and what comes next.
        data_json: Its data, formatted for people.
    """

    detail: MessageDetail
    timeline: list[LifeEvent]
    data_json: str

    @property
    def state(self) -> str:
        """Its state; if it was set aside, the state of the delivery that needs an operator most."""
        states = {each.state for each in self.detail.deliveries}
        return next((each for each in WORST if each in states), self.detail.message.state)

    @property
    def replay_of(self) -> str | None:
        """The id of the message that it was made from."""
        found = self.detail.headers.get(REPLAY_OF)
        return str(found) if found else None

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
    return Life(detail, timeline(detail), json.dumps(detail.data, ensure_ascii=False, indent=2))
