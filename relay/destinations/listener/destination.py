"""A listener in this process: a plain or an async callable, with or without a database session of its own.

A plain callable runs in a thread; an async one on the relay's event loop. A listener whose second parameter is
annotated `Session` or `AsyncSession` gets one: its inbox mark and whatever it writes are committed together, and only
then is the message taken. That makes the effect happen once, however often the message comes.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import traceback
import typing
from collections.abc import Awaitable, Callable
from time import monotonic
from types import CodeType
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from outbox import Message, Reject, once, once_async
from outbox.errors import SettingsError
from relay.database import Database
from relay.decide.outcome import TAKEN, Outcome, busy, failed, refused, unreachable
from relay.destinations.listener.fence import Fence, Overran
from relay.destinations.listener.started import start
from relay.destinations.listener.threads import NoThread, Threads
from relay.observe.logging import redacted
from relay.stall import name_of

log = structlog.get_logger("relay")

SHOW_AGAIN_S = 60.0
LAST_WORDS_S = 1.0  # for an async listener that is cancelled to roll back

Run = Callable[[Message, Fence | None], Awaitable[Any]]


class ListenerDestination:
    """Delivers to a callable.

    Args:
        name: The destination's name.
        listener: The callable, or where it is: ``"module:callable"``.
        database: Where a listener's session connects to.
        concurrency: Calls under way at once.
        timeout_s: The deadline of one call, in seconds; ``None`` for none. A thread cannot be stopped: a plain callable
            that overruns goes on, and is not called again for the same message until it has come to its end.

    Raises:
        SettingsError: It cannot be imported, is not callable, or takes other parameters than a listener's.
    """

    def __init__(
        self,
        name: str,
        listener: str | Callable[..., Any],
        *,
        database: Database,
        concurrency: int = 16,
        timeout_s: float | None = None,
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.listener = load(listener)
        self.label = name_of(self.listener)
        self._timeout_s = timeout_s
        self._shown: dict[tuple[CodeType, int], float] = {}
        self._database = database
        self._threads: Threads | None = None
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        self._run: Run = self._choose(session_kind(self.listener))

    async def start(self) -> None:
        """Nothing to connect to: engines connect when they are first used."""

    async def send(self, message: Message) -> Outcome:
        if self.is_at_work_on(message):
            return busy(f"{self.label} is still at work on it: an earlier call has not come to its end")
        began_at, deadline = monotonic(), None
        try:
            if (rest := start(self._run(message, None))) is not None:
                spent_s = monotonic() - began_at
                deadline = asyncio.timeout(None if self._timeout_s is None else self._timeout_s - spent_s)
                async with deadline:
                    await rest
        except Reject as rejection:
            return refused(redacted(f"rejected by {self.label}: {rejection}"))
        except NoThread:
            if deadline is None or not deadline.expired():
                raise asyncio.CancelledError from None
            return unreachable(
                f"calls of {self.label} that took longer than {self._timeout_s:g} s hold all its threads"
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return failed(f"{self.label} let a cancellation of its own escape")
        except Exception as error:
            if deadline is not None and deadline.expired():
                return failed(f"{self.label} took longer than {self._timeout_s:g} s")
            self._show(error, message)
            return failed(redacted(f"{self.label} raised {type(error).__name__}: {error}"))
        return TAKEN

    async def call(self, message: Message) -> None:
        """Run the listener once, without a deadline; whatever it raises is raised, and then nothing was committed."""
        await self._run(message, None)

    async def call_within(self, timeout_s: float, message: Message) -> None:
        """Run the listener once; what overruns is rolled back.

        A plain callable that overruns keeps its thread until it ends, whenever that is.

        Args:
            timeout_s: Its deadline, in seconds.
            message: What to call it with.

        Raises:
            Overran: Its session has committed nothing, and will not.
            NoThread: Calls that overran hold all threads, so that it was not begun.
        """
        fence = Fence(timeout_s)
        running = asyncio.ensure_future(self._run(message, fence))
        running.add_done_callback(_look_at)
        try:
            done, _ = await asyncio.wait([running], timeout=timeout_s)
            if done or not fence.close():
                await running
                return
        finally:
            running.cancel()
        await asyncio.wait([running], timeout=LAST_WORDS_S)
        if running.done() and not running.cancelled() and isinstance(running.exception(), NoThread):
            raise NoThread
        raise Overran

    def is_at_work_on(self, message: Message) -> bool:
        """Whether an earlier call with this message overran, and has not come to its end yet."""
        return self._threads is not None and self._threads.is_at_work_on(message.id)

    @property
    def held_s(self) -> float:
        """For how long, in seconds, calls that overran have held everything up: nothing can run until they end."""
        return 0.0 if self._threads is None else self._threads.held_s

    def _show(self, error: Exception, message: Message) -> None:
        """The traceback, for whoever has to mend it: once a minute for each place that raises."""
        *_, last = traceback.walk_tb(error.__traceback__)
        place = last[0].f_code, last[1]
        now = monotonic()
        if now - self._shown.get(place, -SHOW_AGAIN_S) >= SHOW_AGAIN_S:
            self._shown[place] = now
            log.warning("listener_raised", destination=self.name, message_id=message.id, exc_info=error)

    async def close(self) -> None:
        if self._threads is not None:
            self._threads.close()
        if self._engine is not None:
            self._engine.dispose()
        if self._async_engine is not None:
            await self._async_engine.dispose()

    def _choose(self, session: type[Session] | type[AsyncSession] | None) -> Run:
        listener = self.listener
        if session is AsyncSession:
            self._async_engine = self._database.async_listener_engine(**self._pool())
            return self._call_with_async_session
        if _is_async(listener):
            return lambda message, _: listener(message)
        locks_all = session is Session and not self._database.is_postgres
        enough = 1 if locks_all else self.concurrency
        threads = self._threads = Threads(self.concurrency, f"outbox-{self.name}", enough=enough)
        if session is Session:
            self._engine = self._database.listener_engine(**self._pool())
            return _in(threads, self._call_with_session)
        return _in(threads, lambda message, _: listener(message))

    def _pool(self) -> dict[str, Any]:
        return {"pool_size": self.concurrency, "max_overflow": 0, "pool_pre_ping": True}

    def _call_with_session(self, message: Message, fence: Fence | None) -> None:
        with Session(self._engine) as session, session.begin():
            if fence is not None:
                fence.limit(session.execute, is_postgres=self._database.is_postgres)
            if once(session, self.name, message.id):
                self.listener(message, session)
            if fence is not None:
                session.flush()
                fence.pass_through()

    async def _call_with_async_session(self, message: Message, fence: Fence | None) -> None:
        async with AsyncSession(self._async_engine) as session, session.begin():
            if fence is not None:
                await session.run_sync(lambda s: fence.limit(s.execute, is_postgres=self._database.is_postgres))
            if await once_async(session, self.name, message.id):
                await self.listener(message, session)
            if fence is not None:
                await session.flush()
                fence.pass_through()


def _look_at(task: asyncio.Future[Any]) -> None:
    """Else asyncio logs what it raised, where its caller had been cancelled and nobody was left to hear of it."""
    if not task.cancelled():
        task.exception()


def _in(threads: Threads, function: Callable[[Message, Fence | None], Any]) -> Run:
    return lambda message, fence: threads.run(message.id, function, message, fence)


def load(listener: str | Callable[..., Any]) -> Callable[..., Any]:
    """The callable that ``module:callable`` names.

    Raises:
        SettingsError: It is not there, or its module cannot be imported.
    """
    if not isinstance(listener, str):
        return listener
    module, _, attribute = listener.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"the listener {listener!r} cannot be loaded ({error}); it is looked for in the "
            "installed packages and in the current directory"
        ) from error
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(
            f"the listener {listener!r} cannot be loaded: importing {module} raised "
            f"{type(error).__name__}: {error} (at {at.filename}:{at.lineno})"
        ) from error
    if not callable(found):
        raise SettingsError(f"{listener!r} is not callable: name a function, as in my_app.reports:on_completed")
    return typing.cast("Callable[..., Any]", found)


def session_kind(listener: Callable[..., Any]) -> type[Session] | type[AsyncSession] | None:
    """Which session the listener asks for with its second parameter.

    Raises:
        SettingsError: Its parameters are not a listener's, or their annotations do not resolve.
    """
    label = name_of(listener)
    try:
        function = listener if inspect.isroutine(listener) else type(listener).__call__
        parameters = list(inspect.signature(listener).parameters.values())
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, ValueError) as error:
        raise SettingsError(
            f"the annotations of {label} do not resolve: {error}; import what they name at the top of that module, not "
            "under TYPE_CHECKING"
        ) from error
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if not parameters or len(required) > 2:
        raise SettingsError(f"{label} must take a message, and may take a session")
    wanted = hints.get(parameters[1].name) if len(parameters) > 1 else None
    if isinstance(wanted, type) and issubclass(wanted, AsyncSession):
        if not _is_async(listener):
            raise SettingsError(f"{label} asks for an AsyncSession and is not async")
        return AsyncSession
    if isinstance(wanted, type) and issubclass(wanted, Session):
        if _is_async(listener):
            raise SettingsError(f"{label} is async and asks for a Session; ask for AsyncSession")
        return Session
    if len(required) == 2:
        raise SettingsError(f"the second parameter of {label} must be annotated Session or AsyncSession")
    return None


def _is_async(listener: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(
        getattr(type(listener), "__call__", None)  # noqa: B004
    )
