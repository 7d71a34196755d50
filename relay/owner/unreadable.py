"""What cannot be read is a dead letter, with the reason, for each destination that wants it: no other message waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from relay.decide.subscription import wants
from relay.store.contract import Batch, Damaged, Page, Parked, Row, Ruled, Session

log = structlog.get_logger("relay")

REPLACED = "\ufffd"  # in a key that cannot be read: nothing is known to wait behind it


class Unreadable:
    """Sets aside what a session could not read.

    Args:
        session: Who read it.
        subscriptions: Destination → the event types that it wants, globs allowed.
        skipping: The destinations whose dead letters do not hold their successors up.
        count: Called with a destination and a state, for each verdict.
    """

    def __init__(
        self,
        session: Session,
        subscriptions: Mapping[str, Sequence[str]],
        *,
        skipping: Sequence[str],
        count: Callable[[str, str], None],
    ) -> None:
        self._session, self._subscriptions = session, subscriptions
        self._skipping, self._count = skipping, count

    def take_out(self, page: Page) -> list[Parked]:
        """Take what cannot be read from a page, and settle it; returns what is parked now.

        Raises:
            Lost: The session is gone; what was not settled is found again by the next one.
        """
        reasons, self._session.unreadable = self._session.unreadable, {}
        messages = [row for row in page.messages if row[0] in reasons]
        deliveries = [row for row in page.deliveries if row[0] in reasons]
        page.messages = [row for row in page.messages if row[0] not in reasons]
        page.deliveries = [row for row in page.deliveries if row[0] not in reasons]
        parked: list[Parked] = []
        for row in messages:
            parked += self._set_aside(row, reasons[row[0]])
        for row in deliveries:
            ruled = _dead(row, row[14], reasons[row[0]], generation=row[15], attempts=row[16])
            parked += self._settle([], [ruled])
        return parked

    def _set_aside(self, row: Row, reason: str) -> list[Parked]:
        wanted_by = [name for name, events in self._subscriptions.items() if wants(events, row[4])]
        message = row[0], row[3]
        if wanted_by:
            return self._settle([message], [_dead(row, name, reason) for name in wanted_by])
        self._session.mark_unrouted([message])
        return []

    def _settle(self, messages: Sequence[tuple[str, int]], ruled: Sequence[Ruled]) -> list[Parked]:
        """One message at a time: one that cannot even be set aside stays where it is, and keeps no other there."""
        message_id, reason = ruled[0].message_id, ruled[0].reason
        try:
            parked = self._session.settle(Batch(messages, ruled, self._skipping))
        except Damaged as error:
            log.warning("unreadable", message_id=message_id, reason=reason, left=f"where it is: {error}")
            return []
        for each in ruled:
            self._count(each.destination, each.state)
        log.warning("unreadable", message_id=message_id, reason=reason)
        return parked


def _dead(row: Row, destination: str, why: str, *, generation: int = 0, attempts: int = 0) -> Ruled:
    reason = f"it cannot be read from the database: {why}"
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Ruled(
        message_id=row[0],
        destination=destination,
        state="dead",
        generation=generation,
        attempts=attempts,
        delay_s=0.0,
        reason=reason,
        log={"at": at, "attempt": attempts, "verdict": "dead", "reason": reason},
        is_keyed=row[7] is not None and REPLACED not in row[7],
    )
