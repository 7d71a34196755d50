"""What every connection of ours to PostgreSQL says first, because it relies on it.

A role, a database, and the environment (PGDATESTYLE, PGTZ, PGOPTIONS) have defaults of their own. Some of them change
what text means, which no driver of ours could read. They are set by a statement: PgBouncer refuses a client that asks
for a setting with its first message.

A pooler in transaction mode gives the session to others after each transaction, with all that was set in it. It makes
up the process id that it tells a client. Where that is not the server's own, settings are made for one transaction,
again in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

# How values are written as text. The connection's first message asks for the encoding (`relay.platform.libpq`).
FORMATS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
}
# What our own statements mean by a date and by a transaction; a listener's session keeps its role's.
MEANINGS = {
    "TimeZone": "UTC",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
WRITES = {"default_transaction_read_only": "off"}

POOLED = "outbox_pooled"


def search_path(schema: str | None) -> dict[str, str]:
    """Return the setting that makes this schema the one where tables are looked for."""
    return {} if schema is None else {"search_path": '"' + schema.replace('"', '""') + '"'}


def statement(settings: Mapping[str, str], *, local: str = "false") -> str:
    """Return one SELECT that makes these settings.

    Args:
        settings: By name.
        local: An expression: whether they end with the transaction.
    """
    return "SELECT " + ", ".join(f"set_config('{name}', {_literal(it)}, {local})" for name, it in settings.items())


def pin(engine: sa.Engine, settings: Mapping[str, str], *, keeps_session: bool = False) -> None:
    """Have every connection of an engine begin with these settings.

    Args:
        engine: On psycopg.
        settings: By name.
        keeps_session: Whether it is known that no pooler takes the session away, so that it need not be looked at.
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
    """Run a query on a new connection, in one round trip outside of a transaction; return the last column."""
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
