"""Translate a database's errors that a worker may meet into errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from outbox.errors import DuplicateId, OutboxError, SchemaError

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_MISSING = ("42P01", "42883", "3F000")  # undefined_table, undefined_function, invalid_schema_name
_TAKEN = "23505"  # unique_violation
_OURS = ("outbox_message", "inbox_message", "outbox_new_id", "outbox_take_turns")


@contextmanager
def explained() -> Iterator[None]:
    """Translate the two database errors that a worker may meet; leave every other error as it is.

    Raises:
        SchemaError: The outbox's tables do not exist.
        DuplicateId: A message has this id already.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        found = _explanation(error)
        if found is None:
            raise
        raise found from None


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
