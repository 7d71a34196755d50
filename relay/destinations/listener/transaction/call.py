"""Call a listener in a transaction: its inbox mark and all its writes are committed together, or none is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from outbox import Message
from relay.destinations.listener.calling import Calling
from relay.destinations.listener.returned import check_returned
from relay.destinations.listener.transaction.commit_gate import CommitGate
from relay.destinations.listener.transaction.inbox_mark import InboxMark, count_transactions
from relay.destinations.listener.transaction.session_guard import COMMITTED_EARLY, ENDED, SessionGuard
from relay.observe import process
from relay.platform.database import Database
from relay.platform.deadlock_retry import is_conflict, pauses_s
from relay.platform.watchdog import name_of

CALM_S = 2.0  # how long calls take turns after a conflict, in seconds
LONGEST_WAIT_S = 2.0  # how long a call waits for its turn: a call that hangs must not hold up the others


class SyncTransactions:
    """Runs a listener that asks for a ``Session``, or a subclass of it, in the current thread.

    Args:
        name: The listener's name in the inbox.
        listener: The callable.
        calling: How the listener is called.
        database: The database of its session.
        pool: Options of SQLAlchemy's engine for its pool.
    """

    def __init__(
        self, name: str, listener: Callable[..., Any], calling: Calling, database: Database, *, pool: dict[str, Any]
    ) -> None:
        self._name = name
        self._call = calling.caller(listener)
        self._session = cast("type[Session]", calling.session)
        self._turns, self._calm_until = Lock(), 0.0
        self._engine: sa.Engine = database.listener_engine(**pool)
        count_transactions(self._engine)
        self._session_guard = SessionGuard(self._engine, name_of(listener))

    def run(self, message: Message, gate: CommitGate | None) -> None:
        """Call the listener and commit; repeat it if the database ended the transaction in favour of another one.

        After a conflict, calls take turns for a while. Otherwise the same calls would conflict again, and each deadlock
        costs a second until the server detects it.
        """
        has_turn = monotonic() < self._calm_until and self._turns.acquire(timeout=LONGEST_WAIT_S)
        try:
            for pause_s in pauses_s():
                try:
                    return self._run(message, gate)
                except Exception as error:
                    if not is_conflict(error) or (gate is not None and not gate.reopen()):
                        raise
                self._calm_until = monotonic() + CALM_S
                time.sleep(pause_s)
                has_turn = has_turn or self._turns.acquire(timeout=LONGEST_WAIT_S)
            return self._run(message, gate)
        finally:
            if has_turn:
                self._turns.release()

    def _run(self, message: Message, gate: CommitGate | None) -> None:
        mark = InboxMark(self._name, message.id)
        try:
            self._run_and_commit(message, gate, mark)
        except Exception:
            if mark.has_lost_its_transaction:
                with mark.warning_if_it_may_stay():
                    with self._engine.begin() as connection:
                        was_committed = mark.remove(connection)
                    if was_committed:
                        self._session_guard.refuse(COMMITTED_EARLY)
            raise

    def _run_and_commit(self, message: Message, gate: CommitGate | None, mark: InboxMark) -> None:
        # Closing it rolls back, and tolerates a transaction that has ended already, unlike session.begin().
        with self._session(self._engine) as session:
            if gate is not None:
                gate.limit(session)
            is_new = mark.make(session)
            process.inbox(self._name, is_new=is_new)
            if is_new:
                try:
                    with self._session_guard.on(session):
                        check_returned(self._call(message, session))
                finally:
                    mark.look()
                if mark.has_lost_its_transaction:
                    self._session_guard.refuse(ENDED)
            if gate is not None:
                session.flush()
                gate.pass_through()
            session.commit()

    async def close(self) -> None:
        self._engine.dispose()


class AsyncTransactions:
    """Runs a listener that asks for an ``AsyncSession``, or a subclass of it, on the event loop.

    Args:
        name: As in ``SyncTransactions``, like the other arguments.
        listener: The callable.
        calling: How the listener is called.
        database: The database of its session.
        pool: Options of SQLAlchemy's engine for its pool.
    """

    def __init__(
        self, name: str, listener: Callable[..., Any], calling: Calling, database: Database, *, pool: dict[str, Any]
    ) -> None:
        self._name = name
        self._call = calling.caller(listener)
        self._session = cast("type[AsyncSession]", calling.session)
        self._turns, self._calm_until = asyncio.Lock(), 0.0
        self._engine: AsyncEngine = database.async_listener_engine(**pool)
        count_transactions(self._engine.sync_engine)
        self._session_guard = SessionGuard(self._engine.sync_engine, name_of(listener))

    async def run(self, message: Message, gate: CommitGate | None) -> None:
        """Call the listener and commit; repeat it as ``SyncTransactions`` does."""
        has_turn = monotonic() < self._calm_until and await self._takes_turn()
        try:
            for pause_s in pauses_s():
                try:
                    return await self._run(message, gate)
                except Exception as error:
                    if not is_conflict(error) or (gate is not None and not gate.reopen()):
                        raise
                self._calm_until = monotonic() + CALM_S
                await asyncio.sleep(pause_s)
                has_turn = has_turn or await self._takes_turn()
            return await self._run(message, gate)
        finally:
            if has_turn:
                self._turns.release()

    async def _takes_turn(self) -> bool:
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                return await self._turns.acquire()
        except TimeoutError:
            return False

    async def _run(self, message: Message, gate: CommitGate | None) -> None:
        mark = InboxMark(self._name, message.id)
        try:
            await self._run_and_commit(message, gate, mark)
        except (Exception, asyncio.CancelledError):
            if mark.has_lost_its_transaction:
                with mark.warning_if_it_may_stay():
                    async with self._engine.begin() as connection:
                        was_committed = await connection.run_sync(mark.remove)
                    if was_committed:
                        self._session_guard.refuse(COMMITTED_EARLY)
            raise

    async def _run_and_commit(self, message: Message, gate: CommitGate | None, mark: InboxMark) -> None:
        async with self._session(self._engine) as session:  # as in SyncTransactions
            if gate is not None:
                await session.run_sync(gate.limit)
            is_new = await session.run_sync(mark.make)
            process.inbox(self._name, is_new=is_new)
            if is_new:
                try:
                    with self._session_guard.on(session.sync_session):
                        check_returned(await self._call(message, session))
                finally:
                    await session.run_sync(mark.look)
                if mark.has_lost_its_transaction:
                    self._session_guard.refuse(ENDED)
            if gate is not None:
                await session.flush()
                gate.pass_through()
            await session.commit()

    async def close(self) -> None:
        await self._engine.dispose()
