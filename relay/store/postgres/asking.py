"""Asking the server: one prepared statement, one blocking call, and the interpreter free for as long as it takes.

The owning thread shares the interpreter with the event loop, which never rests while there is something to send. A
driver that waits in Python takes the interpreter back for every piece of an answer that arrives, and each time it has
to wait for the loop to let go of it. libpq's own blocking call takes it back once, when the whole answer is there.

Everything goes over the wire as text. That spares us adapters on the way out, and a second plan of every statement
whose parameters happened to be small numbers the first time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from re import compile as regex
from typing import Any

import psycopg
from psycopg import abc, adapt, errors, pq

from relay.entry import Row

PARAMETER = regex(r"%\((\w+)\)s")


class Asking:
    """Asks, and prepares what it is asked again.

    Args:
        connection: Used by one thread; its loaders decode the answers.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._pgconn = connection.pgconn
        self._encoding = connection.info.encoding
        self._decoder: abc.Transformer = adapt.Transformer.from_context(connection)
        self._asked: set[str] = set()
        self._names: dict[str, bytes] = {}

    def __call__(self, statement: str, parameters: Mapping[str, Any]) -> Answer:
        """Ask and wait.

        Raises:
            psycopg.Error: As psycopg itself would.
        """
        query, wanted = _numbered(statement)
        values: Any = [self._text(parameters[each]) for each in wanted]
        if statement in self._asked:
            name = self._names.get(statement) or self._prepare(statement, query)
            result = self._pgconn.exec_prepared(name, values)
        else:
            self._asked.add(statement)
            result = self._pgconn.exec_params(query, values)
        return Answer(self._check(result), self._decoder)

    def _prepare(self, statement: str, query: bytes) -> bytes:
        name = b"outbox_%d" % len(self._names)
        self._check(self._pgconn.prepare(name, query))
        self._names[statement] = name
        return name

    def _check(self, result: pq.abc.PGresult) -> pq.abc.PGresult:
        if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            return result
        if self._pgconn.status == pq.ConnStatus.BAD and not result.error_field(pq.DiagnosticField.SQLSTATE):
            raise psycopg.OperationalError(self._pgconn.get_error_message(self._encoding))
        raise errors.error_from_result(result, self._encoding)

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


class Answer:
    """What the server answered."""

    __slots__ = ("_decoder", "_result")

    def __init__(self, result: pq.abc.PGresult, decoder: abc.Transformer) -> None:
        self._result, self._decoder = result, decoder

    @property
    def rowcount(self) -> int:
        """How many rows were written or found."""
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
    """With numbers for its parameters, as libpq wants it, and their names in that order."""
    names = tuple(dict.fromkeys(PARAMETER.findall(statement)))
    numbered = PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", statement)
    return numbered.replace("%%", "%").encode(), names


def _array(values: Sequence[Any]) -> str:
    """An array's literal. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO"""
    if not values:
        return "{}"
    if None in values or isinstance(values[0], int):
        return "{" + ",".join(map(_element, values)) + "}"
    text = '","'.join(values)
    if "\\" in text or text.count('"') > 2 * (len(values) - 1):
        return "{" + ",".join(map(_element, values)) + "}"
    return '{"' + text + '"}'


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
