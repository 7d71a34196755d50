"""SQLSTATEs. https://www.postgresql.org/docs/current/errcodes-appendix.html"""

from __future__ import annotations

# serialization_failure, deadlock_detected
CONFLICTS = frozenset({"40001", "40P01"})
# query_canceled; in_failed_sql_transaction: a savepoint's rollback was canceled, too
INTERRUPTED = frozenset({"57014", "25P02"})
# query_canceled, idle_in_transaction_session_timeout
OVERRUN = frozenset({"57014", "25P03"})
WRONG_SQL: frozenset[str] = frozenset()


def code_of(error: BaseException | None) -> str | None:
    return getattr(error, "sqlstate", None)
