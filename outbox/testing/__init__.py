"""Helpers for an adopter's tests: see which messages a piece of code emitted, and deliver them to a listener.

With pytest, name this module as a plugin in the top-level ``conftest.py`` and use the fixture ``outbox_emitted``::

    pytest_plugins = ["outbox.testing"]

Without pytest, use the context manager ``capture()``. The fixture ``outbox_emptied`` empties the outbox of a database:
define a fixture ``outbox_database`` that returns a URL, an engine or a connection. ``empty()`` does the same without
pytest. ``outbox.tables.metadata().create_all(engine)`` creates the tables.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import sqlalchemy as sa

from outbox import own_packages
from outbox.draft import Prepared
from outbox.errors import OutboxError
from outbox.event import Event
from outbox.message import Message
from outbox.testing.emptying import empty
from outbox.writing.observing import observers, watchers

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from relay import Drained

MOST_REASONS = 5

State: TypeAlias = Literal["pending", "written", "committed", "rolled back"]


class Captured:
    """One message that was emitted during a capture.

    Args:
        prepared: The message in its final form.
        waits: Returns whether a session still has to write the message with this id.
    """

    def __init__(self, prepared: Prepared, waits: Callable[[str], bool]) -> None:
        self.id = prepared.id
        self.type = prepared.type
        self.source = prepared.source
        self.subject = prepared.subject
        self.ordering_key = prepared.ordering_key
        self.data: Any = json.loads(prepared.data)
        self.headers: dict[str, str] = json.loads(prepared.headers)
        self.due_at = prepared.due_at
        self.delay = timedelta(seconds=prepared.delay_s) if prepared.delay_s is not None else None
        self._prepared = prepared
        self._waits = waits
        self._fate: State | None = None

    @property
    def state(self) -> State:
        """Where the message is: in the session, in the open transaction, committed, or rolled back."""
        if self._fate is not None:
            return self._fate
        return "pending" if self._waits(self.id) else "rolled back"

    @property
    def message(self) -> Message:
        """The message as a listener would receive it, to call a listener directly."""
        it = self._prepared
        return Message(it.id, it.type, it.source, it.subject, it.ordering_key, it.data, it.headers, datetime.now(UTC))

    def __repr__(self) -> str:
        return f"<Captured {self.type} {self.data!r} {self.state}>"


class Emitted(Sequence[Captured]):
    """The messages that were emitted and not rolled back, in the order of the calls. It updates itself.

    Example:
        >>> with capture() as emitted:  # doctest: +SKIP
        ...     finish_extraction("c-1")
        >>> [message.type for message in emitted]  # doctest: +SKIP
        ['extraction.completed']
        >>> emitted.committed.of("extraction.completed")[0].data  # doctest: +SKIP
        {'contentId': 'c-1'}
    """

    def __init__(self, captured: list[Captured], *states: State) -> None:
        self._captured = captured
        self._states = states

    @property
    def committed(self) -> Emitted:
        """The messages whose transaction was committed."""
        return Emitted(self._captured, "committed")

    @property
    def rolled_back(self) -> Emitted:
        """The messages that were rolled back and will never be sent."""
        return Emitted(self._captured, "rolled back")

    def of(self, event: type[Event] | str) -> list[Captured]:
        """Return the messages of one event type, given by its class or its name."""
        type_ = event if isinstance(event, str) else event.__event_type__
        return [each for each in self if each.type == type_]

    @overload
    def __getitem__(self, index: int) -> Captured: ...
    @overload
    def __getitem__(self, index: slice) -> list[Captured]: ...
    def __getitem__(self, index: int | slice) -> Captured | list[Captured]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def __repr__(self) -> str:
        return repr(self._now())

    def _now(self) -> list[Captured]:
        return [each for each in self._captured if each.state in self._states]


@contextmanager
def capture() -> Iterator[Emitted]:
    """Record what this process emits, in any thread, session, connection or outbox.

    The messages are written as usual; only the database decides which are committed.

    Example:
        >>> with capture() as emitted:  # doctest: +SKIP
        ...     finish_extraction("c-1")
        >>> assert emitted[0].data == {"contentId": "c-1"}  # doctest: +SKIP
        >>> assert emitted[0].ordering_key == "c-1"  # doctest: +SKIP
    """
    watch = _Watch()
    observers.append(watch)
    try:
        yield Emitted(watch.captured, "pending", "written", "committed")
    finally:
        observers.remove(watch)


class _Watch:
    """Follows messages from the call of ``emit`` to the end of their transaction."""

    def __init__(self) -> None:
        self.captured: list[Captured] = []
        self._by_id: dict[str, Captured] = {}
        self._transactions: dict[sa.Connection, _Transaction] = {}

    def emitted(self, messages: Sequence[Prepared], waits: Callable[[str], bool]) -> None:
        self._see(messages, waits)

    def written(self, messages: Sequence[Prepared], connection: sa.Connection) -> None:
        self._see([each for each in messages if each.id not in self._by_id], lambda _: False)
        if connection not in self._transactions:
            self._transactions[connection] = _Transaction(connection)
        self._transactions[connection].add([self._by_id[each.id] for each in messages])

    def _see(self, messages: Sequence[Prepared], waits: Callable[[str], bool]) -> None:
        for message in messages:
            self._by_id[message.id] = Captured(message, waits)
            self.captured.append(self._by_id[message.id])


class _Transaction:
    """The messages that were written in one connection's current transaction, between its savepoints."""

    def __init__(self, connection: sa.Connection) -> None:
        self._log: list[Captured | str] = []
        sa.event.listen(connection, "commit", lambda _: self._end("committed"))
        sa.event.listen(connection, "rollback", lambda _: self._end("rolled back"))
        sa.event.listen(connection, "commit_twophase", lambda *_: self._end("committed"))
        sa.event.listen(connection, "rollback_twophase", lambda *_: self._end("rolled back"))
        # Not the savepoint event: it does not pass the savepoint's name.
        sa.event.listen(connection, "before_cursor_execute", lambda _, __, statement, *___: self._follow(statement))

    def add(self, captured: list[Captured]) -> None:
        for each in captured:
            each._fate = "written"
        self._log.extend(captured)

    def _follow(self, statement: str) -> None:
        if statement.startswith("SAVEPOINT "):
            self._log.append(statement.removeprefix("SAVEPOINT "))
        elif statement.startswith("ROLLBACK TO SAVEPOINT "):
            self._undo_to(statement.removeprefix("ROLLBACK TO SAVEPOINT "))

    def _undo_to(self, savepoint: str) -> None:
        # A savepoint that is not in the log was set before the first message was written: all came after it.
        start = self._log.index(savepoint) if savepoint in self._log else 0
        self._decide(self._log[start:], "rolled back")
        del self._log[start:]

    def _end(self, fate: State) -> None:
        self._decide(self._log, fate)
        self._log.clear()

    @staticmethod
    def _decide(log: list[Captured | str], fate: State) -> None:
        for each in log:
            if isinstance(each, Captured):
                each._fate = fate


Destinations: TypeAlias = Callable[..., Any] | Mapping[str, Any]


def drain(
    database: str | sa.URL | sa.Engine | AsyncEngine,
    destinations: Destinations,
    *,
    events: Sequence[str] = ("*",),
    **settings: Any,
) -> Drained:
    """Run a relay in this thread until it has delivered everything that can be delivered now.

    The given destinations replace the registered ones of that database, as with ``outbox relay --apply``. If a listener
    raises, its message waits for a retry; ``delivered`` and ``reason`` of the result show that.

    Args:
        database: The database, migrated: its URL, or an engine connected to it. SQLite must be a file.
        destinations: One listener; or several by name, each a listener or a destination's settings.
        events: The event types that each listener subscribes to; globs are allowed.
        settings: Further settings of ``relay.Settings``.

    Returns:
        The count of ``delivered`` messages, and as ``reason`` why some were not: the error of each listener that did
        not take one, or why this relay could not work at all. ``left`` counts, by destination, the messages that are
        due and still wait, with the reason: a retry, a dead predecessor, a missing subscription.

    Raises:
        OutboxError: An event loop is running already: write ``await drain_async(…)``.
        Unusable: The settings or the database's schema do not allow it.

    Example:
        >>> def test_a_completed_extraction_gets_its_baseline(engine):
        ...     finish_extraction("c-1")
        ...     assert drain(engine, on_extraction_completed).delivered == 1
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(drain_async(database, destinations, events=events, **settings))
    raise OutboxError("drain starts an event loop, and one is running already: write await drain_async(…)")


async def drain_async(
    database: str | sa.URL | sa.Engine | AsyncEngine,
    destinations: Destinations,
    *,
    events: Sequence[str] = ("*",),
    **settings: Any,
) -> Drained:
    """Run a relay as ``drain`` does, in the running event loop; parameters, result and errors are the same.

    Example:
        >>> async def test_a_completed_extraction_gets_its_baseline(engine):
        ...     await finish_extraction("c-1")
        ...     assert (await drain_async(engine, on_extraction_completed)).delivered == 1
    """
    relay = own_packages.load("relay")  # only a test that drains needs an installed relay
    named = destinations if isinstance(destinations, Mapping) else {"listener": destinations}
    quick: dict[str, Any] = {"beat_s": 0.05, "health_port": 0, **settings}
    relay_settings = relay.Settings(
        database_url=_url(database),
        destinations={name: _destination(each, events) for name, each in named.items()},
        **quick,
    )
    with _failures() as failures:
        async with relay.Relay(relay_settings, apply=True, wait_for_database=False) as running:
            drained: Drained = await running.drain()
    return replace(drained, reason=drained.reason or _why(failures))


@contextmanager
def _failures() -> Iterator[dict[tuple[str, str], str]]:
    """Collect why listeners did not take messages: for each, the reason of its last call."""
    found: dict[tuple[str, str], str] = {}

    def watch(destination: str, message: Message, reason: str | None) -> None:
        found.pop((destination, message.id), None)
        if reason is not None:
            found[destination, message.id] = f"{message.type} {message.id}: {reason}"

    watchers.append(watch)
    try:
        yield found
    finally:
        watchers.remove(watch)


def _why(failures: Mapping[tuple[str, str], str]) -> str | None:
    if not failures:
        return None
    shown = list(failures.values())[:MOST_REASONS]
    return f"{len(failures)} not taken: {'; '.join(shown)}{'; …' if len(failures) > MOST_REASONS else ''}"


def _url(database: str | sa.URL | sa.Engine | AsyncEngine) -> str:
    if isinstance(database, str):
        return database
    url: sa.URL = database if isinstance(database, sa.URL) else database.url
    return url.render_as_string(hide_password=False)


def _destination(given: Any, events: Sequence[str]) -> Any:
    settings = own_packages.load("relay").ListenerSettings
    return settings(listener=given, events=list(events)) if callable(given) else given


try:
    import pytest
except ImportError:  # capture() and drain() work without pytest
    pass
else:

    @pytest.fixture
    def outbox_emitted() -> Iterator[Emitted]:
        """Record what the test's code emits, as ``capture()`` does."""
        with capture() as emitted:
            yield emitted

    @pytest.fixture
    def outbox_emptied(outbox_database: str | sa.URL | sa.Engine | sa.Connection) -> Any:
        """Empty the outbox before a test; return what the adopter's fixture ``outbox_database`` returned."""
        empty(outbox_database)
        return outbox_database
