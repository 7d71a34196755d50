"""One attempt at a message, and its outcome."""

from __future__ import annotations

import asyncio
import sqlite3

import sqlalchemy as sa
import structlog

from outbox import Message, Reject
from relay.decide.outcome import TAKEN, Outcome, failed, refused, unreachable
from relay.destinations.listener.destination import ListenerDestination
from relay.destinations.listener.threads import NoThread
from relay.destinations.listener.transaction.commit_gate import Overran
from relay.observe.logging import one_line, plain_trace, redacted
from relay.platform.watchdog import end_if_held

log = structlog.get_logger("consumer")

# https://www.postgresql.org/docs/current/errcodes-appendix.html: connection, resources, operator intervention
_OUTAGE = ("08", "53", "57")
# exceptions, caused by the listener: a statement, or a pause between two, longer than the database allows
_OWN_FAULT = ("57014", "25P03")


class Work:
    """Runs a listener: its inbox mark and its effect in one transaction.

    Args:
        listener: The listener, with its threads and its sessions.
        concurrency: Calls under way at once.
        timeout_s: The deadline of one call, in seconds.
    """

    def __init__(self, listener: ListenerDestination, *, concurrency: int, timeout_s: float) -> None:
        self._listener = listener
        self._timeout_s = timeout_s
        self.room = asyncio.Semaphore(concurrency)

    async def attempt(self, message: Message) -> Outcome:
        """Call the listener once.

        The outcome is *taken* after the commit, *refused* for a message that is never tried again, *failed* if the
        message is at fault, and *unreachable* if no message is.
        """
        if self._listener.is_at_work_on(message):
            return failed(f"it took longer than {self._timeout_s:g} s, and has not ended yet")
        try:
            await self._listener.call_within(self._timeout_s, message)
        except Reject as rejection:
            return refused(_shown(rejection))
        except NoThread:
            end_if_held(self._listener.label, self._listener.held_s)
            return unreachable(f"calls that took longer than {self._timeout_s:g} s hold all threads")
        except Overran:
            return failed(f"it took longer than {self._timeout_s:g} s")
        except Exception as error:
            if is_outage(error):
                return unreachable(_shown(error))
            log.warning("listener_raised", message_id=message.id, exception=plain_trace(error))
            return failed(f"{type(error).__name__}: {_shown(error)}")
        return TAKEN

    async def close(self) -> None:
        await self._listener.close()


def is_outage(error: BaseException) -> bool:
    """Return whether the database is at fault and not the message."""
    if isinstance(error, sa.exc.TimeoutError):
        return True  # the connection pool is exhausted
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state in _OWN_FAULT:
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return error.orig.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR  # its code for wrong SQL
    return state is None or state[:2] in _OUTAGE


def _shown(error: BaseException) -> str:
    """Return the error in one line, without passwords; for an error of SQLAlchemy, the database's own words."""
    told = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    return one_line(redacted(" ".join(str(told).split())))[:1000]
