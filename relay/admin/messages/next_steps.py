"""The next step of an unsettled message, in sentences that name the process or person that has to act."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.tables import tables
from relay.admin.destinations.subscriptions import Registered
from relay.admin.messages.outcomes import OUTCOMES
from relay.admin.relays import live_relays
from relay.decide.verdict import READ_PATH, State
from relay.platform.wording import utc


class NextSteps:
    """The next steps of one message.

    Args:
        connection: To the outbox's database.
        message: Its row in ``outbox_message``.
    """

    def __init__(self, connection: sa.Connection, message: sa.Row[Any]) -> None:
        self._connection, self._message = connection, message
        self._registered = Registered(connection)
        self.owner = next((relay.id for relay in live_relays(connection) if message.shard in relay.shards), None)

    def wanted_by(self) -> list[str]:
        """Return the destinations of a message without a delivery that was set aside."""
        return self._registered.wanting(self._message.type) if self._message.state in READ_PATH else []

    def of_message(self) -> str:
        match self._message.state:
            case State.UNROUTED:
                what = f"it is delivered when a subscription wants {self._message.type}"
                return f"{what}; `outbox cancel {self._message.id}` gives it up"
            case State.SCHEDULED:
                return f"it falls due at {utc(self._message.due_at)}; then {self._reader()}"
            case State.READY:
                return self._reader()
        return "see its deliveries below; it moves to the history when all of them are done"

    def of_settled(self) -> str:
        """Return what happens to a message whose deliveries are all done."""
        who = f"relay {self.owner}" if self.owner else "a relay"
        return f"nothing is sent; {who} moves it to the history" + ("" if self.owner else f" ({self._no_owner()})")

    def of_waiting(self, name: str) -> str:
        """Return what happens at a destination if the message's delivery there was not set aside."""
        when = "it waits for its time; " if self._message.state == State.SCHEDULED else ""
        return when + self.at_destination(name)

    def of_delivery(self, row: sa.Row[Any]) -> str:
        match row.state:
            case State.DELIVERED:
                return "done"
            case State.DISCARDED | State.CANCELLED:
                return f"nothing: an operator {row.state} it"
            case State.EXPIRED:
                return (
                    f"nothing: it expired; to send it anyway: `outbox replay {row.message_id} --to {row.destination}`"
                )
            case State.DEAD:
                return f"an operator decides: `outbox dead retry {row.message_id}`, or `outbox dead discard …`"
            case State.BLOCKED:
                return self._behind(row)
            case State.RETRY:
                return f"attempt {row.attempts + 1} when it falls due: {self.at_destination(row.destination)}"
        return self.at_destination(row.destination)

    def at_destination(self, name: str) -> str:
        row = self._registered.rows.get(name)
        if row is None or row.removed_at is not None:
            return f"nothing while {name} is not registered: configure it and run `outbox relay --apply`"
        if row.paused_by == "operator":
            return f"an operator paused {name}: {row.reason}; `outbox resume {name}` ends the pause"
        match row.state:
            case "off":
                return f"{name} is switched off ({row.reason}): `outbox resume {name}`"
            case "paused" if self.owner is None:
                return f"{name} was down ({row.reason}), and no relay probes it: {self._no_owner()}"
            case "paused":
                return f"{name} is down ({row.reason}) and probed{_at(row.until)}; it is sent after a successful probe"
            case "throttled":
                return f"{name} asked for a pause{_at(row.until)}; then {self._sender()}"
        return f"{self._sender()} ({name}: {row.note})" if self.owner and row.note else self._sender()

    def _behind(self, row: sa.Row[Any]) -> str:
        d = tables().delivery.c
        first = self._connection.execute(
            sa.select(d.message_id, d.state)
            .where(d.ordering_key == row.ordering_key, d.destination == row.destination, d.position < row.position)
            .where(d.state.not_in(OUTCOMES))
            .order_by(d.position)
            .limit(1)
        ).first()
        if first is None:
            return f"it is sent after its predecessor of key {row.ordering_key}; {self._sender()}"
        advice = ": retry or discard that one" if first.state == State.DEAD else ""
        return f"it waits behind {first.message_id} of its key, which is {first.state}{advice}"

    def _sender(self) -> str:
        return f"relay {self.owner} sends it" if self.owner else self._no_owner()

    def _reader(self) -> str:
        return f"relay {self.owner} holds it, or is about to read it" if self.owner else self._no_owner()

    def _no_owner(self) -> str:
        return f"no relay owns its shard, {self._message.shard}: start one with `outbox relay`"


def _at(until: Any) -> str:
    return f" at {utc(until)}" if until is not None else ""
