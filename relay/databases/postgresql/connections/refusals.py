"""Translate errors of PostgreSQL, of its client library and of poolers into sentences that say what to do."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.errors import OutboxError, SchemaError, Unusable

# Answers of a server or pooler to a client that it will never let in. libpq passes on only their text.
REFUSALS = (
    " does not exist",
    "no such database",
    "no such user",
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "is not permitted to log in",
    "permission denied for database",
)
# Parts of the server that open its files. For a file that it may not open, as on a disk that was remounted read-only,
# the server has no SQLSTATE but that of a missing right.
FILES = ("md.c", "fd.c", "smgr.c", "slru.c", "relmapper.c", "xlog.c", "xlogutils.c", "copydir.c", "buffile.c")


def explained(error: sa.exc.DBAPIError, said: str, place: str) -> OutboxError | None:
    state = getattr(error.orig, "sqlstate", None)
    if is_damage(error.orig) or state == "25006":  # read_only_sql_transaction
        return Unusable(f"the database {place} cannot be used: {said}; look at the log of its server")
    if state == "42501":
        return Unusable(f"{said} in {place}: `outbox db grants` prints the rights that each role needs")
    if state == "42P01":
        return SchemaError(f"{said} in {place}: run `outbox db upgrade`")
    if state == "55P03" or (state or "").startswith("40"):
        return OutboxError(f"{said} in {place}: another session was changing the same rows; run it again")
    if state in ("25P03", "25P04"):
        return OutboxError(f"{said} in {place}: raise this timeout for this role, or run it at a quieter time")
    if state == "57014":
        return OutboxError(f"{said} in {place}: raise statement_timeout for this role, or run it at a quieter time")
    if state is None or state[:2] in ("08", "28", "3D", "53", "57"):
        if is_refusal(error.orig):
            reason = said.rpartition("FATAL:")[2].strip()
            return Unusable(
                f"the server of {place} refuses us: {reason}; check what OUTBOX_DATABASE_URL or DATABASE_URL says"
            )
        return Unusable(
            f"cannot reach the database {place}: {said}; check that the server runs and accepts connections, "
            "and what OUTBOX_DATABASE_URL or DATABASE_URL says"
        )
    return None


def is_refusal(error: BaseException | None) -> bool:
    """Return whether waiting is useless: the server answers, and has no such database, role or password."""
    said = str(error)
    return ("FATAL" in said and any(each in said for each in REFUSALS)) or "no password supplied" in said


def is_damage(error: Any) -> bool:
    """Return whether the server cannot read or write its files, or finds damage in them.

    Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    state = getattr(error, "sqlstate", None) or ""
    if state == "42501":
        return getattr(error.diag, "source_file", None) in FILES
    return state in ("XX001", "XX002") or state.startswith("58")
