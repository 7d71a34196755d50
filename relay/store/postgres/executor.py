"""Run prepared statements, each with one blocking call that frees the interpreter while the server works.

The owning thread shares the interpreter with the event loop, which is always busy while there are messages to send. A
driver that waits in Python needs the interpreter for every piece of an answer, and each time waits until the loop
releases it. libpq's blocking call needs it once, when the whole answer has arrived.

A statement whose answer is not needed at once is run `ahead`: the server works on it while this thread goes on.
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html

All parameters are sent as text. This needs no adapters, and avoids a second plan for a statement whose first parameters
were small numbers.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from re import compile as regex
from typing import Any

import psycopg
from psycopg import abc, adapt, errors, pq

from relay.store.rows import Row

PARAMETER = regex(r"%\((\w+)\)s")
ENDS = (b"FATAL", b"PANIC")


class Executor:
    """Runs statements, and prepares a statement when it runs it a second time.

    Args:
        connection: Used by one thread; its loaders decode the answers.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._pgconn = connection.pgconn
        self._encoding = connection.info.encoding
        self._decoder: abc.Transformer = adapt.Transformer.from_context(connection)
        self._asked: set[str] = set()
        self._names: dict[str, bytes] = {}
        self._ahead: list[PendingAnswer] = []

    def __call__(self, statement: str, parameters: Mapping[str, Any]) -> Answer:
        """Run a statement and wait for its answer.

        Raises:
            psycopg.Error: As psycopg itself would.
        """
        if self._ahead:
            return self.answer(self.ahead(statement, parameters))
        query, values = self._bound(statement, parameters)
        if statement in self._asked:
            result = self._pgconn.exec_prepared(self._prepared(statement, query), values)
        else:
            self._asked.add(statement)
            result = self._pgconn.exec_params(query, values)
        return self._answer(result)

    def ahead(self, statement: str, parameters: Mapping[str, Any]) -> PendingAnswer:
        """Run a statement without waiting: its answer arrives with that of the next statement.

        It is a separate transaction, even if the next statement fails.

        Raises:
            psycopg.Error: The server rejects the statement, or the session has ended.
        """
        query, values = self._bound(statement, parameters)
        name = self._prepared(statement, query)
        with self._unbroken():
            if not self._ahead:
                self._pgconn.enter_pipeline_mode()
            self._pgconn.send_query_prepared(name, values)
            self._pgconn.pipeline_sync()
        self._ahead.append(asked := PendingAnswer())
        return asked

    def answer(self, asked: PendingAnswer) -> Answer:
        """Return the answer to a statement that was run ahead.

        Raises:
            psycopg.Error: As psycopg itself would.
        """
        if asked.result is None:
            self.catch_up()
        assert asked.result is not None
        return self._answer(asked.result)

    def catch_up(self) -> None:
        """Wait for the answers to statements that were run ahead.

        Raises:
            psycopg.Error: The session has ended.
        """
        if not self._ahead:
            return
        with self._unbroken():
            for each in self._ahead:
                each.result = self._receive()
            self._pgconn.exit_pipeline_mode()
        self._ahead = []

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Close the session on any error: a half-sent or half-answered statement makes it unusable."""
        try:
            yield
        except BaseException:
            self._pgconn.finish()
            raise

    def _receive(self) -> pq.abc.PGresult:
        """Return the result of one statement; also read the two markers after it, its end and that of the pipeline."""
        result = self._next()
        if result is None or result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) in ENDS:
            raise self._error(result)
        self._next()
        self._next()
        return result

    def _next(self) -> pq.abc.PGresult | None:
        pgconn = self._pgconn
        while (is_unsent := pgconn.flush()) or pgconn.is_busy():
            poll = select.poll()
            poll.register(pgconn.socket, select.POLLIN | (select.POLLOUT if is_unsent else 0))
            poll.poll()
            pgconn.consume_input()
        return pgconn.get_result()

    def _bound(self, statement: str, parameters: Mapping[str, Any]) -> tuple[bytes, Any]:
        query, wanted = _numbered(statement)
        return query, [self._text(parameters[each]) for each in wanted]

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
        if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            return result
        raise self._error(result)

    def _error(self, result: pq.abc.PGresult | None) -> psycopg.Error:
        if result is None or not result.error_field(pq.DiagnosticField.SQLSTATE):
            return psycopg.OperationalError(self._pgconn.get_error_message(self._encoding))
        return errors.error_from_result(result, self._encoding)

    def _text(self, value: Any) -> bytes | None:
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            value = _array(value)
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
    """Return a statement with numbered parameters, as libpq needs it, and their names in that order."""
    names = tuple(dict.fromkeys(PARAMETER.findall(statement)))
    numbered = PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", statement)
    return numbered.replace("%%", "%").encode(), names


def _array(values: Sequence[Any]) -> str:
    """Return an array's literal. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO"""
    if not values:
        return "{}"
    if None in values:
        return "{" + ",".join(map(_element, values)) + "}"
    if isinstance(values[0], int):
        return "{" + ",".join(map(str, values)) + "}"
    text = '","'.join(values)
    if "\\" in text or text.count('"') > 2 * (len(values) - 1):
        return "{" + ",".join(map(_element, values)) + "}"
    return '{"' + text + '"}'


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
