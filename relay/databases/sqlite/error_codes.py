"""SQLite's names of errors. https://www.sqlite.org/rescode.html"""

from __future__ import annotations

CONFLICTS: frozenset[str] = frozenset()
INTERRUPTED = frozenset({"SQLITE_INTERRUPT"})
OVERRUN: frozenset[str] = frozenset()
WRONG_SQL = frozenset({"SQLITE_ERROR", "SQLITE_ERROR_MISSING_COLLSEQ"})


def code_of(error: BaseException | None) -> str | None:
    return getattr(error, "sqlite_errorname", None)
