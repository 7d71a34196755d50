"""Turn a row that cannot be read into a dead letter, with the reason, for each destination that wants it.

Thus no other message waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from relay.databases.store.contract import Settling
from relay.databases.store.records import Batch, Ruled
from relay.databases.store.refused import RefusedRow, refused_of
from relay.databases.store.rows import (
    DESTINATION,
    FAILING_FOR_S,
    GENERATION,
    ID,
    ORDERING_KEY,
    TYPE,
    Page,
    Parked,
    Row,
)
from relay.decide.subscription import wants
from relay.decide.verdict import State

log = structlog.get_logger("relay")

REPLACED = "\ufffd"  # for a key that cannot be read: no delivery is known to wait behind it


class Unreadable:
    """Sets unreadable messages aside.

    Args:
        unreadable: Message → why it cannot be read; the session adds them.
        settling: The writes of the session.
        subscriptions: Destination → the event types that it wants, globs allowed.
        count: Called with a destination and a state, for each verdict.
    """

    def __init__(
        self,
        unreadable: dict[str, str],
        settling: Settling,
        subscriptions: Mapping[str, Sequence[str]],
        *,
        count: Callable[..., None],
    ) -> None:
        self._unreadable, self._settling = unreadable, settling
        self._subscriptions, self._count = subscriptions, count

    def take_out(self, page: Page) -> list[Parked]:
        """Remove unreadable messages from a page, and settle them; return the deliveries that are parked now.

        Raises:
            Lost: The session is gone; the next session finds the unsettled messages again.
        """
        reasons = dict(self._unreadable)
        self._unreadable.clear()
        parked: list[Parked] = []
        for row in _taken_out(page.messages, reasons):
            parked += self._set_aside(row, reasons[row[ID]])
        for row in _taken_out(page.deliveries, reasons):
            parked += self._settle([], [_dead(row, reasons[row[ID]], *row[DESTINATION:FAILING_FOR_S])])
        return parked

    def _set_aside(self, row: Row, why: str) -> list[Parked]:
        message = row[ID], row[GENERATION]
        wanted_by = [name for name, events in self._subscriptions.items() if wants(events, row[TYPE])]
        if wanted_by:
            return self._settle([message], [_dead(row, why, name) for name in wanted_by])
        for _, refusal in refused_of([message], self._settling.mark_unrouted):
            log.warning("unreadable", message_id=row[ID], reason=why, left=f"where it is: {refusal}")
        return []

    def _settle(self, messages: Sequence[tuple[str, int]], ruled: Sequence[Ruled]) -> list[Parked]:
        """Settle one message. If its row cannot be changed either, it stays where it is and delays no other message."""
        message_id, reason = ruled[0].message_id, ruled[0].reason
        try:
            parked = self._settling.settle(Batch(messages, ruled))
        except RefusedRow as error:
            log.warning("unreadable", message_id=message_id, reason=reason, left=f"where it is: {error}")
            return []
        for each in ruled:
            self._count(each.destination, each.state, reason=each.reason)
        log.warning("unreadable", message_id=message_id, reason=reason)
        return parked


def _taken_out(rows: list[Row], ids: Collection[str]) -> list[Row]:
    """Remove the rows of these messages; return them."""
    found = [row for row in rows if row[ID] in ids]
    rows[:] = [row for row in rows if row[ID] not in ids]
    return found


def _dead(row: Row, why: str, destination: str, generation: int = 0, attempts: int = 0) -> Ruled:
    reason = f"it cannot be read from the database: {why}"
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Ruled(
        message_id=row[ID],
        destination=destination,
        state=State.DEAD,
        generation=generation,
        attempts=attempts,
        delay_s=0.0,
        reason=reason,
        log={"at": at, "attempt": attempts, "verdict": State.DEAD, "reason": reason},
        is_keyed=row[ORDERING_KEY] is not None and REPLACED not in row[ORDERING_KEY],
    )
