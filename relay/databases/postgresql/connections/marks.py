"""Signs of the transaction that an inbox mark was written in, and limits of that transaction.

The sign is ``application_name``, changed for one transaction by the statement that writes the mark. The server reports
each change of this setting unasked, including the change back, so it costs no round trip to look at it. The second
setting is read only if the first one differs: a listener may have changed the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

import sqlalchemy as sa

SIGN = " (in a listener)"
_LONGEST = 63 - len(SIGN)  # PostgreSQL cuts an application_name to 63 bytes
_SETTING = "outbox.in_a_listener"

_NAME = sa.func.left(sa.func.current_setting("application_name"), _LONGEST)
MARKS: Sequence[sa.ColumnElement[Any]] = (
    sa.literal_column("CAST(CAST(pg_current_xact_id() AS xid) AS text)", sa.Text),
    sa.func.set_config("application_name", _NAME.op("||")(SIGN), True),
    sa.func.set_config(_SETTING, "yes", True),
)
MARKED: sa.ColumnElement[str] = sa.literal_column("CAST(xmin AS text)", sa.Text)

# A shorter limit that is already set is kept; 0 means no limit.
LIMIT = sa.text(
    "SELECT set_config(name, :limit, true)"
    " FROM unnest(ARRAY['statement_timeout', 'idle_in_transaction_session_timeout']) AS name"
    " WHERE current_setting(name)::interval NOT BETWEEN interval '1 ms' AND CAST(:limit AS interval)"
)


def watch_transactions(engine: sa.Engine) -> None:
    """Do nothing: the server reports the sign."""


def sign(connection: sa.Connection) -> None:
    return None


def has_sign(connection: sa.Connection, sign: Any) -> bool:
    driver: Any = connection.connection.driver_connection
    if driver.closed or (driver.info.parameter_status("application_name") or "").endswith(SIGN):
        return not driver.closed
    with closing(connection.connection.cursor()) as cursor, suppress(connection.dialect.loaded_dbapi.Error):
        cursor.execute(f"SELECT current_setting('{_SETTING}', true)")
        return bool(cursor.fetchone() == ("yes",))
    return False


def limit_call(connection: sa.Connection, timeout_s: float) -> None:
    connection.execute(LIMIT, {"limit": f"{max(int(timeout_s * 1000), 1)}ms"})
