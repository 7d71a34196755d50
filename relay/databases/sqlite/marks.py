"""Signs of the transaction that an inbox mark was written in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

MARKED: sa.ColumnElement[str] = sa.literal_column("done_at", sa.Text)
MARKS: Sequence[sa.ColumnElement[Any]] = (MARKED,)
_BEGUN = "transactions begun"  # a key in `Connection.info`


def limit_call(connection: sa.Connection, timeout_s: float) -> None:
    """Do nothing: there is no server."""


def watch_transactions(engine: sa.Engine) -> None:
    """Count the transactions that each connection begins: SQLite reports every statement to its client."""

    def on_connect(connection: Any, record: Any) -> None:
        record.info[_BEGUN] = 0

        def trace(statement: str) -> None:
            if statement[:5].upper() == "BEGIN":
                record.info[_BEGUN] += 1

        if engine.dialect.is_async:
            connection.run_async(lambda driver: driver.set_trace_callback(trace))
        else:
            connection.set_trace_callback(trace)

    sa.event.listen(engine, "connect", on_connect)


def sign(connection: sa.Connection) -> Any:
    return connection.info.get(_BEGUN)


def has_sign(connection: sa.Connection, sign: Any) -> bool:
    driver: Any = connection.connection.driver_connection
    return bool(driver.in_transaction) and connection.info.get(_BEGUN) == sign
