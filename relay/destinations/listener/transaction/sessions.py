"""Open a listener's sessions, and wait as the caller must: in a thread, or in a greenlet of the event loop.

`call` has the steps of a call, for both. A greenlet is how SQLAlchemy itself runs below an ``AsyncSession``: there,
`await_only` lets the event loop go on in the meantime.
"""

from __future__ import annotations

import asyncio
import time
from threading import Lock
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from relay.databases.database import close_engine
from relay.destinations.listener.errors import ErrorGuard, contained, contained_call

LONGEST_WAIT_S = 2.0  # how long a call waits for its turn: a call that hangs must not hold up other calls


class Sessions(Protocol):
    """The sessions of one listener; all calls use the same object."""

    engine: sa.Engine
    contained: ErrorGuard  # around each call of the listener

    def open(self) -> tuple[Session | AsyncSession, Session]:
        """Return the session to lend to the listener, and the session that does its work."""

    def result_of(self, returned: Any) -> Any:
        """Return the listener's result; on the event loop, await it."""

    def pause(self, pause_s: float) -> None:
        """Wait this long, in seconds."""

    def take_turn(self) -> bool:
        """Wait until no other call has the turn, `LONGEST_WAIT_S` at most; return whether this call has it now."""

    def end_turn(self) -> None:
        """Let another call have the turn."""

    async def close(self) -> None:
        """Close the connections."""


class ThreadSessions:
    """Opens a ``Session``, or a subclass of it, for a listener that runs in the current thread.

    Args:
        kind: The class that the listener asks for.
        engine: The engine of its sessions, which no other code uses.
    """

    def __init__(self, kind: type[Session], engine: sa.Engine) -> None:
        self._kind, self.engine, self.contained = kind, engine, contained_call
        self._turns = Lock()
        self.end_turn = self._turns.release

    def open(self) -> tuple[Session | AsyncSession, Session]:
        session = self._kind(self.engine)
        return session, session

    def result_of(self, returned: Any) -> Any:
        return returned

    def pause(self, pause_s: float) -> None:
        time.sleep(pause_s)

    def take_turn(self) -> bool:
        return self._turns.acquire(timeout=LONGEST_WAIT_S)

    async def close(self) -> None:
        close_engine(self.engine)  # a call that overran may have a session still


class LoopSessions:
    """Opens an ``AsyncSession``, or a subclass of it, for a listener that runs on the event loop.

    Args:
        kind: The class that the listener asks for.
        engine: The engine of its sessions, which no other code uses.
    """

    def __init__(self, kind: type[AsyncSession], engine: AsyncEngine) -> None:
        self._kind, self._async_engine, self.engine = kind, engine, engine.sync_engine
        self.contained = contained
        self._turns = asyncio.Lock()
        self.end_turn = self._turns.release

    def open(self) -> tuple[Session | AsyncSession, Session]:
        session = self._kind(self._async_engine)
        return session, session.sync_session

    def result_of(self, returned: Any) -> Any:
        return await_only(returned)

    def pause(self, pause_s: float) -> None:
        await_only(asyncio.sleep(pause_s))

    def take_turn(self) -> bool:
        return await_only(self._acquired())

    async def _acquired(self) -> bool:
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                return await self._turns.acquire()
        except TimeoutError:
            return False

    async def close(self) -> None:
        await self._async_engine.dispose()
