"""What PostgreSQL really does for a statement: the plan that it runs, with rows and pages.

Every statement of a watched owning session is explained first, as a prepared statement under that session's
settings, with the same parameters, and its changes are rolled back; then it is run. Operators' statements through an
engine are explained likewise, but not prepared.
"""

from __future__ import annotations

import json
import re
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa

from relay.databases.postgresql.sql import connection as connection_sql
from relay.databases.postgresql.sql import ownership as ownership_sql
from relay.databases.postgresql.sql import reading as reading_sql
from relay.databases.postgresql.sql import settling as settling_sql
from relay.databases.postgresql.sql import sweeping as sweeping_sql
from relay.databases.postgresql.store.arrays import TID, UUID, Binary


@dataclass(frozen=True)
class Plan:
    """One statement as it was run."""

    name: str
    nodes: tuple[dict[str, Any], ...]

    @property
    def indexes(self) -> set[str]:
        """The indexes that were scanned, of the outbox's tables."""
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def scanned_tables(self) -> set[str]:
        """The tables that were read from one end to the other."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    def rows_looked_at_in(self, table: str) -> int:
        """Return the same for one table; for ``outbox_history``, with all its partitions."""
        return sum(_rows(node) for node in self.nodes if _name(node).startswith(table))

    @property
    def pages(self) -> int:
        """How many pages were looked at, in memory or on disk."""
        return self.nodes[0]["Shared Hit Blocks"] + self.nodes[0]["Shared Read Blocks"]

    @property
    def rows_looked_at(self) -> int:
        """Rows that scans of our tables found, whether or not they were kept."""
        return self.rows_looked_at_in("outbox_")

    def __str__(self) -> str:
        lines = [f"{n['Node Type']} {n.get('Index Name') or n.get('Relation Name', '')}" for n in self.nodes]
        return f"{self.name}: {', '.join(lines)}; {self.pages} pages"


@contextmanager
def watched(session: Any) -> Iterator[list[Plan]]:
    """Collect the plans of the relay's named statements that this owning session runs."""
    plans: list[Plan] = []
    connection = session.connection

    def explaining(run: Any) -> Any:
        def explained(statement: str, **parameters: Any) -> Any:
            if name := _NAMES.get(statement):
                connection.executor.catch_up()
                values = {**connection._constants, **parameters}
                plans.append(_explain(connection.bare, name, statement, values))
            return run(statement, **parameters)

        return explained

    connection.run, connection.run_ahead = explaining(connection.run), explaining(connection.run_ahead)
    try:
        yield plans
    finally:
        del connection.run, connection.run_ahead


@contextmanager
def asked(engine: sa.Engine) -> Iterator[list[Plan]]:
    """Collect the plans of the statements through this engine, except those that use no table."""
    plans: list[Plan] = []

    def explained(connection: sa.Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        if "outbox_" in statement and not statement.startswith(("EXPLAIN", "LOCK")):
            with driver.transaction() as undone, driver.cursor() as own:
                own.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", parameters)
                plans.append(Plan(" ".join(statement.split()), tuple(_flat(own.fetchall()[0][0][0]["Plan"]))))
                raise psycopg.Rollback(undone)

    sa.event.listen(engine, "before_cursor_execute", explained)
    try:
        yield plans
    finally:
        sa.event.remove(engine, "before_cursor_execute", explained)


def _name(node: dict[str, Any]) -> str:
    return str(node.get("Relation Name", ""))


def _rows(node: dict[str, Any]) -> int:
    return round(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)))


def _explain(connection: psycopg.Connection[Any], name: str, statement: str, values: dict[str, Any]) -> Plan:
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    numbered = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", statement).replace("%%", "%")
    arguments = ", ".join(_literal(values[each]) for each in names)
    with connection.transaction() as undone, connection.cursor() as cursor:
        cursor.execute(f"PREPARE watched AS {numbered}", prepare=False)
        cursor.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE watched{f'({arguments})' if names else ''}",
            prepare=False,
        )
        row = cursor.fetchone()
        assert row is not None
        plan = Plan(name, tuple(_flat(json.loads(row[0])[0]["Plan"])))  # a session of ours reads JSON as text
        cursor.execute("DEALLOCATE watched", prepare=False)
        raise psycopg.Rollback(undone)
    return plan


def _literal(value: Any) -> str:
    """Return a literal whose type is the parameter's."""
    if value is None:
        return "NULL"
    if isinstance(value, Binary):
        value = _unpacked(value)
    if isinstance(value, list):
        parts = ("NULL" if each is None else '"' + str(each).replace('"', '\\"') + '"' for each in value)
        return _literal("{" + ",".join(parts) + "}")
    return "'" + str(value).replace("'", "''") + "'"


def _unpacked(array: Binary) -> list[str]:
    """Return the values of an array in binary format, as text."""
    _, _, type_, count, _ = struct.unpack_from("!iiiii", array)
    form, as_text = {UUID[0]: ("!i16s", lambda octets: str(uuid.UUID(bytes=octets))), TID[0]: ("!iIH", _address)}[type_]
    values = struct.iter_unpack(form, array[20:])
    found = [as_text(*value) for _, *value in values]
    assert len(found) == count
    return found


def _address(block: int, item: int) -> str:
    return f"({block},{item})"


def _flat(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _flat(child)


STATEMENTS = {
    name: text
    for module in (connection_sql, ownership_sql, reading_sql, settling_sql, sweeping_sql)
    for name, text in vars(module).items()
    if isinstance(text, str) and re.match(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", text)
}
_NAMES = {text: name for name, text in STATEMENTS.items()}
