"""See which messages a piece of code emitted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, overload

import sqlalchemy as sa

from outbox.draft import Prepared
from outbox.event import Event
from outbox.message import Message
from outbox.writing.observing import observers

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
        # The savepoint event is not used, because it does not pass the savepoint's name.
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
        # A savepoint that is not in the log was set before the first message was written, so all messages came after
        # it.
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
