"""Run prepared statements, each with one blocking call that frees the interpreter while the server works.

The owning thread shares the interpreter with the event loop, which is always busy while there are messages to send. A
driver that waits in Python needs the interpreter for every piece of an answer, and each time it waits until the loop
releases the interpreter. libpq's blocking call needs the interpreter once, when the whole answer has arrived.

A statement whose answer is not needed at once is run `ahead`: the server works on it while this thread continues. When
there is much to do, the server always has the next statement before it has answered the previous one, so it never waits
for this thread.
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html

All parameters except long arrays are sent as text. This needs no adapters, and avoids a second plan for a statement
whose first parameters were small numbers.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from re import compile as regex
from time import sleep
from typing import Any

import psycopg
from psycopg import abc, adapt, errors, pq

from relay.databases.postgresql.store import arrays
from relay.databases.store.rows import Row

PARAMETER = regex(r"%\((\w+)\)s")
ENDS = (b"FATAL", b"PANIC")
GATHER_S = 0.0005  # how long the pieces of a large answer may gather


class Executor:
    """Runs statements, and prepares a statement when it runs it a second time.

    Args:
        connection: Used by one thread; its loaders decode the answers.
        note_answer: Called after each answer of the server.
    """

    def __init__(self, connection: psycopg.Connection[Any], note_answer: Callable[[], None] = lambda: None) -> None:
        self._pgconn, self._note_answer = connection.pgconn, note_answer
        self._encoding = connection.info.encoding
        self._decoder: abc.Transformer = adapt.Transformer.from_context(connection)
        self._asked: set[str] = set()
        self._names: dict[str, bytes] = {}
        self._ahead: list[PendingAnswer] = []

    def __call__(self, statement: str, parameters: Mapping[str, Any]) -> Answer:
        """Run a statement and wait for its answer.

        Raises:
            psycopg.Error: As psycopg itself would raise it.
        """
        if self._ahead:
            return self.answer(self.ahead(statement, parameters))
        query, values, formats = self._bound(statement, parameters)
        if statement in self._asked:
            result = self._pgconn.exec_prepared(self._prepared(statement, query), values, formats)
        else:
            self._asked.add(statement)
            result = self._pgconn.exec_params(query, values, param_formats=formats)
        return self._answer(result)

    def ahead(self, statement: str, parameters: Mapping[str, Any], *, is_large: bool = False) -> PendingAnswer:
        """Run a statement without waiting for its answer.

        It is a separate transaction, even if the next statement fails.

        Args:
            statement: The statement.
            parameters: Its parameters.
            is_large: Whether its answer comes in many pieces. Each piece needs the interpreter, so the pieces are left
                to gather; the server has another statement to work on.

        Raises:
            psycopg.Error: The server rejects the statement, or the session has ended.
        """
        query, values, formats = self._bound(statement, parameters)
        name = self._prepared(statement, query)
        with self._unbroken():
            if not self._ahead:
                self._pgconn.enter_pipeline_mode()
            self._pgconn.send_query_prepared(name, values, formats)
            self._pgconn.pipeline_sync()
        self._ahead.append(asked := PendingAnswer(pause_s=GATHER_S if is_large else 0.0))
        return asked

    def answer(self, asked: PendingAnswer) -> Answer:
        """Return the answer to a statement that was run ahead.

        Raises:
            psycopg.Error: As psycopg itself would raise it.
        """
        while asked.result is None:
            self._receive_next()
        return self._answer(asked.result)

    def catch_up(self) -> None:
        """Wait for the answers to statements that were run ahead.

        Raises:
            psycopg.Error: The session has ended.
        """
        while self._ahead:
            self._receive_next()

    def _receive_next(self) -> None:
        """Wait for the answer to the first of the statements that were run ahead."""
        with self._unbroken():
            self._ahead[0].result = self._receive(self._ahead[0].pause_s)
            del self._ahead[0]
            if not self._ahead:
                self._pgconn.exit_pipeline_mode()

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Close the session after any error: a half-sent or half-answered statement makes it unusable."""
        try:
            yield
        except BaseException:
            self._pgconn.finish()
            raise

    def _receive(self, pause_s: float) -> pq.abc.PGresult:
        """Return the result of one statement; also read the two markers after it: its end, and that of the pipeline."""
        result = self._next(pause_s)
        if result is None or result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) in ENDS:
            raise self._error(result)
        self._next()
        self._next()
        return result

    def _next(self, pause_s: float = 0.0) -> pq.abc.PGresult | None:
        pgconn = self._pgconn
        while (is_unsent := pgconn.flush()) or pgconn.is_busy():
            poll = select.poll()
            poll.register(pgconn.socket, select.POLLIN | (select.POLLOUT if is_unsent else 0))
            poll.poll()
            if pause_s and not is_unsent:
                sleep(pause_s)
                while pgconn.is_busy() and poll.poll(0):
                    pgconn.consume_input()
            else:
                pgconn.consume_input()
        return pgconn.get_result()

    def _bound(self, statement: str, parameters: Mapping[str, Any]) -> tuple[bytes, Any, list[int]]:
        """Return the statement, its parameters in their order, and the format of each parameter."""
        query, wanted = _numbered(statement)
        values = [parameters[each] for each in wanted]
        return query, list(map(self._encoded, values)), [int(isinstance(value, arrays.Binary)) for value in values]

    def _prepared(self, statement: str, query: bytes) -> bytes:
        name = self._names.get(statement)
        if name is None:
            self.catch_up()
            name = b"outbox_%d" % len(self._names)
            self._check(self._pgconn.prepare(name, query))
            self._names[statement] = name
        return name

    def _answer(self, result: pq.abc.PGresult) -> Answer:
        return Answer(self._check(result), self._decoder)

    def _check(self, result: pq.abc.PGresult) -> pq.abc.PGresult:
        self._note_answer()
        if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            return result
        raise self._error(result)

    def _error(self, result: pq.abc.PGresult | None) -> psycopg.Error:
        if result is None or not result.error_field(pq.DiagnosticField.SQLSTATE):
            return psycopg.OperationalError(self._pgconn.get_error_message(self._encoding))
        return errors.error_from_result(result, self._encoding)

    def _encoded(self, value: Any) -> bytes | None:
        if value is None or isinstance(value, arrays.Binary):
            return value
        if isinstance(value, (list, tuple)):
            value = arrays.text(value)
        elif isinstance(value, bool):
            value = "t" if value else "f"
        encoded = str(value).encode(self._encoding)
        if b"\0" in encoded:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL")
        return encoded


@dataclass(slots=True)
class PendingAnswer:
    """The answer to a statement that was run ahead, once it has been read."""

    result: pq.abc.PGresult | None = None
    pause_s: float = 0.0


class Answer:
    """The server's answer to a statement."""

    __slots__ = ("_decoder", "_result")

    def __init__(self, result: pq.abc.PGresult, decoder: abc.Transformer) -> None:
        self._result, self._decoder = result, decoder

    @property
    def rowcount(self) -> int:
        """The number of rows that were written or found."""
        return self._result.command_tuples or 0

    def fetchall(self) -> list[Row]:
        self._decoder.set_pgresult(self._result)
        return self._decoder.load_rows(0, self._result.ntuples, tuple)

    def fetchone(self) -> Row | None:
        rows = self.fetchall()
        return rows[0] if rows else None

    def __iter__(self) -> Iterator[Row]:
        return iter(self.fetchall())


@cache
def _numbered(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """Return a statement with numbered parameters, which libpq needs, and the parameters' names in that order."""
    names = tuple(dict.fromkeys(PARAMETER.findall(statement)))
    numbered = PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", statement)
    return numbered.replace("%%", "%").encode(), names
