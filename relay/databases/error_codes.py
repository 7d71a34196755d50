"""The meaning of drivers' error codes, for all databases, because a listener may use another one than the outbox.

A code is the SQLSTATE, or SQLite's name of an error.
Sources: https://www.postgresql.org/docs/current/errcodes-appendix.html, https://www.sqlite.org/rescode.html
"""

from __future__ import annotations

import sqlalchemy as sa

# serialization_failure, deadlock_detected: the database ended the transaction in favour of another one
CONFLICTS = frozenset({"40001", "40P01"})
# query_canceled; in_failed_sql_transaction: a savepoint's rollback was canceled, too; and SQLite's
INTERRUPTED = frozenset({"57014", "25P02", "SQLITE_INTERRUPT"})
# query_canceled, idle_in_transaction_session_timeout: a statement, or a pause between two, was longer than allowed
OVERRUN = frozenset({"57014", "25P03"})
# wrong SQL, if the driver raises it as an operational error
WRONG_SQL = frozenset({"SQLITE_ERROR", "SQLITE_ERROR_MISSING_COLLSEQ"})


def code_of(error: BaseException) -> str | None:
    """Return the code of a driver's error, even if SQLAlchemy's error wraps it; ``None`` if it has no code."""
    found = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code: str | None = getattr(found, "sqlstate", None) or getattr(found, "sqlite_errorname", None)
    return code
