"""One attempt at a message, and what it came to."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
import structlog

from outbox import Message, Reject
from relay.decide.outcome import TAKEN, Outcome, failed, refused, unreachable
from relay.destinations.listener import ListenerDestination
from relay.observe.logging import one_line, redacted

log = structlog.get_logger("consumer")

# https://www.postgresql.org/docs/current/errcodes-appendix.html: connection, resources, operator intervention
_OUTAGE = ("08", "53", "57")


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
        """Taken: committed. Refused: never again. Failed: its own fault. Unreachable: the database is away."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._listener.call(message)
        except Reject as rejection:
            return refused(_shown(rejection))
        except TimeoutError:
            return failed(f"it took longer than {self._timeout_s:g} s")
        except Exception as error:
            if is_outage(error):
                return unreachable(_shown(error))
            log.warning("listener_raised", message_id=message.id, exc_info=error)
            return failed(f"{type(error).__name__}: {_shown(error)}")
        return TAKEN

    async def close(self) -> None:
        await self._listener.close()


def is_outage(error: BaseException) -> bool:
    """Whether the database, not the message, is what is wrong."""
    if isinstance(error, sa.exc.TimeoutError):
        return True  # nothing free in the connection pool
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state[:2] in _OUTAGE


def _shown(error: BaseException) -> str:
    """In one line, without passwords; of what SQLAlchemy says, the database's own words."""
    told = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    return one_line(redacted(" ".join(str(told).split())))[:1000]
