"""Translate a database's errors that a worker may meet into errors that say what to do."""

from __future__ import annotations

from types import TracebackType

import sqlalchemy as sa

from outbox.errors import DuplicateId, OutboxError, SchemaError
from outbox.writing.dialects.dialect import Dialect

_OURS = ("outbox_message", "inbox_message", "outbox_new_id", "outbox_take_turns")


class _Explained:
    """Translates the two database errors that a worker may meet; leaves every other error as it is.

    It is not a generator, which would cost as much for each message as the check of its data.

    Args:
        dialect: The dialect of the connection's database.

    Raises:
        SchemaError: The outbox's tables do not exist.
        DuplicateId: A message has this id already.
    """

    __slots__ = ("_dialect",)

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        found = _explanation(error, self._dialect) if isinstance(error, sa.exc.DBAPIError) else None
        if found is not None:
            raise found from None


explained = _Explained


def _explanation(error: sa.exc.DBAPIError, dialect: Dialect) -> OutboxError | None:
    said = " ".join(str(error.orig).split())
    if not any(each in said for each in _OURS):
        return None
    refusal = dialect.refusal(error, said)
    said = said.partition(" LINE 1: ")[0]  # psycopg repeats the statement there
    if refusal == "missing":
        return SchemaError(
            f"the outbox's tables are not in this database, or not in this schema ({said[:200]}): run "
            '`outbox db upgrade`, or say which schema they are in, as in Outbox(schema="billing")'
        )
    if refusal == "taken":
        return DuplicateId(
            f"a message with this id exists already, or was delivered ({said[:200]}): each id is for one message; "
            "leave the id out, or treat the first message's result as yours"
        )
    return None
