"""A listener in this process: a plain or an async callable, with or without a database session.

A plain callable runs in a thread, an async one on the relay's event loop. An awaitable that a plain one returns is
awaited on the event loop, too. A listener with a parameter annotated `Session` or `AsyncSession` receives one. Its
inbox mark and all its writes are committed together, and only then is the message taken. So the effect happens once,
even if the message is delivered several times.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from time import monotonic
from types import CodeType
from typing import Any, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from outbox import Message, Reject
from outbox.writing.observing import watchers
from relay.databases.database import Database
from relay.decide.outcome import TAKEN, Outcome, busy, failed, refused, unanswered, unreachable
from relay.destinations.listener.calling import how_to_call
from relay.destinations.listener.errors import ListenerError, contained, contained_call, how_it_raised
from relay.destinations.listener.loading import load
from relay.destinations.listener.returned import ReturnedSomething, check_returned
from relay.destinations.listener.started import start
from relay.destinations.listener.threads import NoThread, Threads
from relay.destinations.listener.transaction.call import Transactions
from relay.destinations.listener.transaction.commit_gate import CommitGate, Overran
from relay.destinations.listener.transaction.sessions import LoopSessions, Sessions, ThreadSessions
from relay.destinations.listener.unavailable import is_from_outside
from relay.destinations.sending.deadline import Deadline
from relay.observe.errors import is_for_the_task
from relay.observe.logging import plain_trace, redacted
from relay.observe.tracing import SYSTEM, processing
from relay.platform.watchdog import name_of

log = structlog.get_logger("relay")

SHOW_AGAIN_S = 60.0
LAST_WORDS_S = 1.0  # how long a cancelled async listener may take to roll back

Run = Callable[[Message, CommitGate | None], Awaitable[Any]]


class ListenerDestination:
    """Delivers to a callable.

    Args:
        name: The destination's name.
        listener: The callable, or its name: ``"module:callable"``.
        database: The database of the listener's session.
        concurrency: Calls at the same time.
        timeout_s: The deadline of one call, in seconds; ``None`` for none. A thread cannot be stopped: an overrunning
            plain callable continues, and is not called again for the same message until it has ended.
        system: The system that its messages come from, for traces.

    Raises:
        SettingsError: It cannot be imported, is not callable, or does not have a listener's parameters.
    """

    def __init__(
        self,
        name: str,
        listener: str | Callable[..., Any],
        *,
        database: Database,
        concurrency: int = 16,
        timeout_s: float | None = None,
        system: str = SYSTEM,
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.listener = load(listener)
        self.label = name_of(self.listener)
        self._deadline = Deadline(timeout_s) if timeout_s is not None else None
        self._shown: dict[tuple[CodeType, int], float] = {}
        self._threads: Threads | None = None
        self._sessions: Sessions | None = None
        self._run: Run = processing(name, system, self._choose(database))
        if watchers:  # only in tests, so that a relay does not pay for them
            self.send = self._watched(self.send)  # type: ignore[method-assign, assignment]

    async def start(self) -> None:
        """Do nothing: engines connect when they are first used."""

    async def send(self, message: Message) -> Outcome:
        if self._threads is not None and self.is_at_work_on(message):
            return busy(
                f"{self.label} is still working on it: an earlier call took longer than {self._limit}, and has "
                "not ended yet"
            )
        attempt = None
        try:
            if self._deadline is None:
                if (rest := start(self._run(message, None))) is not None:
                    check_returned(await rest)
            elif self._sessions is not None:
                timeout_s = self._deadline.after_s
                await self._run_with_gate(CommitGate(timeout_s, tells_database=False), timeout_s, message)
            else:
                began_at = monotonic()
                if (rest := start(self._run(message, None))) is not None:
                    attempt = self._deadline.attempt(began_at)
                    with attempt:
                        check_returned(await rest)
        except Reject as rejection:
            return refused(redacted(f"rejected by {self.label}: {rejection}"))
        except NoThread:
            if self._sessions is None and (attempt is None or not attempt.is_expired):
                raise asyncio.CancelledError from None
            return unreachable(f"calls of {self.label} hold all its threads: they took longer than {self._limit}")
        except Overran:
            return unanswered(f"{self.label} took longer than {self._limit}: it is rolled back")
        except BaseException as error:
            if is_for_the_task(error):
                raise
            if isinstance(error, asyncio.CancelledError):
                return failed(f"{self.label} raised its own cancellation")
            if attempt is not None and attempt.is_expired:
                return unanswered(f"{self.label} took longer than {self._limit}")
            self._show(error, message)
            reason = redacted(f"{self.label} {_said(error)}")
            return unanswered(reason) if is_from_outside(error) else failed(reason)
        return TAKEN

    def _watched(
        self, send: Callable[[Message], Awaitable[Outcome]]
    ) -> Callable[[Message], Coroutine[Any, Any, Outcome]]:
        async def watched(message: Message) -> Outcome:
            original = message.copy()
            outcome = await send(message)
            for watcher in watchers:
                watcher(self.name, original, outcome.reason or None)
            return outcome

        return watched

    @property
    def _limit(self) -> str:
        return "its deadline" if self._deadline is None else f"{self._deadline.after_s:g} s, its deadline (timeout_s)"

    async def call(self, message: Message, timeout_s: float | None) -> None:
        """Run the listener once, with a copy of the message; roll its transaction back if it raises or overruns.

        A plain callable that overruns keeps its thread until it ends.

        Args:
            message: The message to pass.
            timeout_s: Its deadline, in seconds; ``None`` for none.

        Raises:
            Overran: The deadline passed; the call's session has committed nothing, and never will.
            NoThread: Overrunning calls hold all threads, so the listener was not called.
        """
        if timeout_s is None:
            check_returned(await self._contained(message.copy(), None))
        else:
            await self._run_with_gate(CommitGate(timeout_s), timeout_s, message.copy())

    async def _contained(self, message: Message, gate: CommitGate | None) -> Any:
        with contained:
            rest = start(self._run(message, gate))
            return None if rest is None else await rest

    async def _run_with_gate(self, gate: CommitGate, timeout_s: float, message: Message) -> None:
        running = asyncio.ensure_future(self._contained(message, gate))
        running.add_done_callback(_look_at)
        try:
            done, _ = await asyncio.wait([running], timeout=timeout_s)
            if done or not gate.close():
                check_returned(await running)
                return
        finally:
            running.cancel()
        await asyncio.wait([running], timeout=LAST_WORDS_S)
        if running.done() and not running.cancelled() and isinstance(running.exception(), NoThread):
            raise NoThread
        raise Overran

    def is_at_work_on(self, message: Message) -> bool:
        """Return whether an earlier call with this message overran and has not ended yet."""
        return self._threads is not None and self._threads.is_at_work_on(message.id)

    @property
    def held_s(self) -> float:
        """Return how long overrunning calls have held all threads, in seconds; 0 while a call can run."""
        return 0.0 if self._threads is None else self._threads.held_s

    def _show(self, error: BaseException, message: Message) -> None:
        """Log the traceback, for the developer of the listener: once a minute for each place that raises."""
        error = error.__cause__ or error if isinstance(error, ListenerError) else error
        *_, last = traceback.walk_tb(error.__traceback__)
        place = last[0].f_code, last[1]
        now = monotonic()
        if now - self._shown.get(place, -SHOW_AGAIN_S) >= SHOW_AGAIN_S:
            self._shown[place] = now
            log.warning("listener_raised", destination=self.name, message_id=message.id, exception=plain_trace(error))

    async def close(self) -> None:
        if self._deadline is not None:
            self._deadline.close()
        if self._threads is not None:
            self._threads.close()
        if self._sessions is not None:
            await self._sessions.close()

    def _choose(self, database: Database) -> Run:
        listener, calling = self.listener, how_to_call(self.listener)
        pool = {"pool_size": self.concurrency, "max_overflow": 0, "pool_pre_ping": True}
        if calling.wants_async_session:
            engine = database.async_listener_engine(**pool)
            database.dialect.watch_transactions(engine.sync_engine)
            self._sessions = LoopSessions(cast("type[AsyncSession]", calling.session), engine)
            transactions = Transactions(self.name, listener, calling, self._sessions)
            return lambda message, gate: greenlet_spawn(transactions.run, message, gate)
        if calling.is_async:
            return lambda message, _: listener(message)
        locks_all = calling.session is not None and database.is_file
        enough = 1 if locks_all else self.concurrency
        threads = self._threads = Threads(self.concurrency, f"outbox-{self.name}", enough=enough)
        if calling.session is not None:
            plain_engine = database.listener_engine(**pool)
            database.dialect.watch_transactions(plain_engine)
            self._sessions = ThreadSessions(cast("type[Session]", calling.session), plain_engine)
            return _in(threads, Transactions(self.name, listener, calling, self._sessions).run)
        return _in(threads, lambda message, _: _called(listener, message))


def _called(listener: Callable[[Message], Any], message: Message) -> Any:
    with contained_call:
        return listener(message)


def _look_at(task: asyncio.Future[Any]) -> None:
    """Retrieve a task's error, which asyncio would otherwise log, because the caller was cancelled."""
    if not task.cancelled():
        task.exception()


def _in(threads: Threads, function: Callable[[Message, CommitGate | None], Any]) -> Run:
    async def run(message: Message, gate: CommitGate | None) -> Any:
        returned = await threads.run(message.id, function, message, gate)
        return await returned if returned is not None and isawaitable(returned) else returned

    return run


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, ReturnedSomething | ListenerError) else how_it_raised(error)
