"""Make a row that cannot be read a dead letter, with the reason, for each destination that wants it.

So no other message waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from relay.decide.subscription import wants
from relay.decide.verdict import State
from relay.store.contract import Batch, Damaged, Ruled, Session
from relay.store.rows import (
    ATTEMPTS,
    DELIVERY_GENERATION,
    DESTINATION,
    GENERATION,
    ID,
    ORDERING_KEY,
    TYPE,
    Page,
    Parked,
    Row,
)

log = structlog.get_logger("relay")

REPLACED = "\ufffd"  # for a key that cannot be read: no delivery is known to wait behind it


class Unreadable:
    """Sets unreadable messages aside.

    Args:
        session: The session that reads them.
        subscriptions: Destination → the event types that it wants, globs allowed.
        skipping: The destinations whose dead letters do not block their successors.
        count: Called with a destination and a state, for each verdict.
    """

    def __init__(
        self,
        session: Session,
        subscriptions: Mapping[str, Sequence[str]],
        *,
        skipping: Sequence[str],
        count: Callable[..., None],
    ) -> None:
        self._session, self._subscriptions = session, subscriptions
        self._skipping, self._count = skipping, count

    def take_out(self, page: Page) -> list[Parked]:
        """Remove unreadable messages from a page, and settle them; return the deliveries that are parked now.

        Raises:
            Lost: The session is gone; the next one finds the unsettled ones again.
        """
        reasons, self._session.unreadable = self._session.unreadable, {}
        messages = [row for row in page.messages if row[ID] in reasons]
        deliveries = [row for row in page.deliveries if row[ID] in reasons]
        page.messages = [row for row in page.messages if row[ID] not in reasons]
        page.deliveries = [row for row in page.deliveries if row[ID] not in reasons]
        parked: list[Parked] = []
        for row in messages:
            parked += self._set_aside(row, reasons[row[ID]])
        for row in deliveries:
            ruled = _dead(
                row,
                row[DESTINATION],
                reasons[row[ID]],
                generation=row[DELIVERY_GENERATION],
                attempts=row[ATTEMPTS],
            )
            parked += self._settle([], [ruled])
        return parked

    def _set_aside(self, row: Row, reason: str) -> list[Parked]:
        wanted_by = [name for name, events in self._subscriptions.items() if wants(events, row[TYPE])]
        message = row[ID], row[GENERATION]
        if wanted_by:
            return self._settle([message], [_dead(row, name, reason) for name in wanted_by])
        self._session.mark_unrouted([message])
        return []

    def _settle(self, messages: Sequence[tuple[str, int]], ruled: Sequence[Ruled]) -> list[Parked]:
        """Settle one message. One that cannot be changed either stays where it is, without an effect on others."""
        message_id, reason = ruled[0].message_id, ruled[0].reason
        try:
            parked = self._session.settle(Batch(messages, ruled, self._skipping))
        except Damaged as error:
            log.warning("unreadable", message_id=message_id, reason=reason, left=f"where it is: {error}")
            return []
        for each in ruled:
            self._count(each.destination, each.state, reason=each.reason)
        log.warning("unreadable", message_id=message_id, reason=reason)
        return parked


def _dead(row: Row, destination: str, why: str, *, generation: int = 0, attempts: int = 0) -> Ruled:
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
