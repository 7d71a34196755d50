"""Sleep without missing a message, and at a low cost for workers."""

from __future__ import annotations

import os
import select

from relay.databases.postgresql.sql import connection as connection_sql
from relay.databases.postgresql.store.connection import OwningConnection
from relay.decide.visibility import Horizon

NEVER, AWAKE, ASLEEP = 0, 1, 2  # the values of the sequence outbox_wake
UNNOTIFIED_S = 0.1  # between two polls, if workers do not notify

WAKE_STATE = "SELECT last_value FROM outbox_wake"
SET_WAKE = "SELECT setval('outbox_wake', %(value)s) FROM outbox_wake WHERE last_value <> 0"  # NEVER is permanent


# The schemas that a notification for us may name: that of the messages, or that of an operator's session. Other
# outboxes in this database use the same channel.
SCHEMAS = """
SELECT current_schema()::text,
       (SELECT n.nspname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass('outbox_message'))
"""


class Waking:
    """The sleep of a session.

    Args:
        connection: The connection of the session.
        notify: Whether to listen for workers' notifications; if not, switch them off for all relays.
    """

    def __init__(self, connection: OwningConnection, *, notify: bool) -> None:
        self._db, self._notify = connection, notify
        self._asleep_since: Horizon | None = None
        self._schemas: set[bytes] = set()
        self._begin()

    def _begin(self) -> None:
        """Listen, or switch notifications off: a worker that prepares transactions must never notify."""
        if self._notify:
            self._schemas = {name.encode() for name in self._db.run(SCHEMAS).fetchone() or () if name is not None}
            self._db.run("LISTEN outbox_wake")
        else:
            self._db.run(f"SELECT setval('outbox_wake', {NEVER})")

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        with self._db.guard():
            if self._hear():  # the notification arrived with an answer
                return True
            server = self._db.bare.fileno()
            poll = select.poll()
            poll.register(server, select.POLLIN)
            poll.register(wake_fd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(round(max(timeout_s, 0) * 1000))}  # poll() would round up
            if wake_fd in ready:
                os.read(wake_fd, 4096)
            return server in ready and self._hear()

    def _hear(self) -> bool:
        """Read the notifications that have arrived; return whether one of them was for us."""
        pgconn = self._db.bare.pgconn
        pgconn.consume_input()
        notified = False
        while (notification := pgconn.notifies()) is not None:
            notified = notified or notification.extra in self._schemas
        return notified

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        """Return how long to sleep: long only if no running transaction can have read the flag before it was set."""
        if not self._notify:
            return min(wanted_s, UNNOTIFIED_S)
        with self._db.guard():
            state = self._db.one(WAKE_STATE)
            if state == NEVER:
                return min(wanted_s, UNNOTIFIED_S)
            if state != ASLEEP or self._asleep_since is None:
                self._db.run(SET_WAKE, value=ASLEEP)
                self._asleep_since = Horizon.parse(self._db.one(connection_sql.SNAPSHOT))
                return short_s
            slept_in_peace = Horizon.parse(self._db.one(connection_sql.SNAPSHOT)).is_past(self._asleep_since)
        return wanted_s if slept_in_peace else 2 * short_s

    def awake(self) -> None:
        if self._asleep_since is None:
            return
        self._asleep_since = None
        with self._db.guard():
            if self._db.one(WAKE_STATE) == ASLEEP:
                self._db.run(SET_WAKE, value=AWAKE)
