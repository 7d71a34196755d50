"""The settings that each of our connections to PostgreSQL makes first, because our code relies on them.

Roles, databases and the environment (PGDATESTYLE, PGTZ, PGOPTIONS) have their own defaults. Some of them change the
text form of values, which our drivers could then not read. The settings are made by a statement, because PgBouncer
refuses a client that asks for a setting in its first message.

A pooler in transaction mode gives the session, with its settings, to other clients after each transaction. It reports
an invented process id to a client. If that differs from the server's, the settings are made for one transaction, and
again in each transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

# The text form of values. The connection's first message sets the encoding (`libpq`).
FORMATS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
}
# Dates and transactions in our own statements; a listener's session keeps its role's settings.
MEANINGS = {
    "TimeZone": "UTC",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
WRITES = {"default_transaction_read_only": "off"}

POOLED = "outbox_pooled"


def search_path(schema: str | None) -> dict[str, str]:
    """Return the setting that makes tables be looked up in this schema."""
    return {} if schema is None else {"search_path": '"' + schema.replace('"', '""') + '"'}


def statement(settings: Mapping[str, str], *, local: str = "false") -> str:
    """Return one SELECT that makes these settings.

    Args:
        settings: Name → value.
        local: An SQL expression that says whether the settings end with the transaction.
    """
    return "SELECT " + ", ".join(f"set_config('{name}', {_literal(it)}, {local})" for name, it in settings.items())


def pin(engine: sa.Engine, settings: Mapping[str, str], *, keeps_session: bool = False) -> None:
    """Make every connection of an engine begin with these settings.

    Args:
        engine: An engine on psycopg.
        settings: Name → value.
        keeps_session: Whether it is certain that no pooler gives the session to another client; then this is not
            checked.
    """

    def on_connect(connection: Any, record: Any) -> None:
        info = record.driver_connection.info
        local = "false" if keeps_session else f"pg_backend_pid() <> {info.backend_pid:d}"
        pid = ask_first(connection, f"{statement(settings, local=local)}, pg_backend_pid()")
        if not keeps_session and pid != info.backend_pid:
            record.info[POOLED] = True
            record.driver_connection.prepare_threshold = None

    def on_begin(connection: sa.Connection) -> None:
        if POOLED in connection.info:
            connection.exec_driver_sql(statement(settings, local="true"))

    sa.event.listen(engine, "connect", on_connect, insert=True)
    sa.event.listen(engine, "begin", on_begin)


def ask_first(connection: Any, query: str) -> Any:
    """Run a query on a new connection, in one round trip outside a transaction; return the last column."""
    before = connection.autocommit
    connection.autocommit = True
    cursor = connection.cursor()
    try:
        cursor.execute(query)
        return cursor.fetchone()[-1]
    finally:
        cursor.close()
        connection.autocommit = before


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
