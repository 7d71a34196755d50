"""What the page shows, read from one state of the database; however many look, it is read once a second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from outbox.errors import Unusable
from relay.admin import Status, status
from relay.admin.access.opening import opened_snapshot
from relay.admin.access.queries import now
from relay.admin.audit_log import AuditEntry, record
from relay.admin.messages.dead import Cause, DeadFilter, causes
from relay.settings import Settings

FRESH_S = 1.0
CAUSES_SHOWN = 20
ACTIONS_SHOWN = 10


@dataclass(frozen=True)
class Picture:
    """Everything on the page, of one moment by the database's clock."""

    database: str
    at: datetime
    status: Status
    causes: list[Cause]
    actions: list[AuditEntry]


class Camera:
    """Takes pictures, one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._last: Picture | Unusable | None = None
        self._taken_at = 0.0

    def picture(self) -> Picture:
        """The last one, if it is fresh, or a new one.

        Raises:
            Unusable: The database cannot be reached, or has no outbox.
        """
        with self._lock:
            if self._last is None or time.monotonic() - self._taken_at > FRESH_S:
                self._last = self._take()
                self._taken_at = time.monotonic()
            if isinstance(self._last, Unusable):
                raise self._last
            return self._last

    def _take(self) -> Picture | Unusable:
        try:
            with opened_snapshot(self._settings) as connection:
                return self._read(connection)
        except Unusable as error:
            return error

    def _read(self, connection: sa.Connection) -> Picture:
        found = status(connection)
        return Picture(
            database=str(self._settings.database),
            at=now(connection),
            status=found,
            causes=causes(connection, DeadFilter())[:CAUSES_SHOWN] if found.dead else [],
            actions=record(connection, limit=ACTIONS_SHOWN),
        )
