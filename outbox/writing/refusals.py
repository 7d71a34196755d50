"""Translate a database's errors that a worker may meet into errors that say what to do."""

from __future__ import annotations

from types import TracebackType

import sqlalchemy as sa

from outbox.errors import DuplicateId, OutboxError, SchemaError

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_MISSING = ("42P01", "42883", "3F000")  # undefined_table, undefined_function, invalid_schema_name
_TAKEN = "23505"  # unique_violation
_OURS = ("outbox_message", "inbox_message", "outbox_new_id", "outbox_take_turns")


class _Explained:
    """Translates the two database errors that a worker may meet; leaves every other error as it is.

    It is no generator: for each message, that would cost as much as a check of its data.

    Raises:
        SchemaError: The outbox's tables do not exist.
        DuplicateId: A message has this id already.
    """

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        found = _explanation(error) if isinstance(error, sa.exc.DBAPIError) else None
        if found is not None:
            raise found from None


explained = _Explained()


def _explanation(error: sa.exc.DBAPIError) -> OutboxError | None:
    said = " ".join(str(error.orig).split())
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if not any(each in said for each in _OURS):
        return None
    if state in _MISSING or "no such table" in said:
        return SchemaError(
            f"the outbox's tables are not in this database, or not in this schema ({said[:200]}): run "
            '`outbox db upgrade`, or say which schema they are in, as in Outbox(schema="billing")'
        )
    if state == _TAKEN or "UNIQUE constraint failed: outbox_message" in said:
        return DuplicateId(
            f"a message with this id exists already, or was delivered ({said[:200]}): each id is for one message; "
            "leave the id out, or treat the first message's result as yours"
        )
    return None
