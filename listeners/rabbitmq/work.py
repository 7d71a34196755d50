"""One attempt at a message, and its outcome."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
import structlog

from outbox import Message, Reject
from relay.databases.error_codes import means
from relay.decide.outcome import TAKEN, Outcome, failed, refused, unreachable
from relay.destinations.listener.destination import ListenerDestination
from relay.destinations.listener.threads import NoThread
from relay.destinations.listener.transaction.commit_gate import Overran
from relay.destinations.listener.unavailable import is_from_outside
from relay.observe.logging import plain_trace
from relay.observe.text import shown
from relay.platform.watchdog import end_if_held

MOST_CHARACTERS = 1000  # the most characters of a reason

log = structlog.get_logger("consumer")


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
            await self._listener.call(message, self._timeout_s)
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
            return failed(f"{type(error).__name__}: {_shown(error)}".rstrip(": "))
        return TAKEN

    async def close(self) -> None:
        await self._listener.close()


def is_outage(error: BaseException) -> bool:
    """Return whether the database, not the message, is at fault."""
    if not isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, sa.exc.TimeoutError)  # the connection pool is exhausted
    is_own_fault = means(error, "OVERRUN", "WRONG_SQL")
    return not is_own_fault and is_from_outside(error)


def _shown(error: BaseException) -> str:
    return shown(error)[:MOST_CHARACTERS]
