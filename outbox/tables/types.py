"""The types of the outbox's columns, and what is fixed about its tables.

Databases store these types in different ways. Each `outbox.writing.dialects.dialect.Dialect` has a type with the same
name as the type here, and a statement uses the type of the database that it runs on.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from outbox.errors import InvalidTarget
from outbox.writing.dialects.dialect import dialect_named, dialect_of

SHARD_COUNT = 64
INBOX = "inbox_message"


class _Type(sa.TypeDecorator[Any]):
    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        try:
            types = dialect_named(dialect.name)
        except InvalidTarget:  # a statement is printed without a database
            return dialect.type_descriptor(self.impl_instance)
        return dialect.type_descriptor(getattr(types, type(self).__name__))


class BigInt(_Type):
    """An integer of 64 bits."""

    impl = sa.BigInteger
    cache_ok = True


class Id(_Type):
    """The id of a message: a UUID, which is text in Python."""

    impl = sa.Uuid(as_uuid=False)
    cache_ok = True


class Instant(_Type):
    """A point in time: an aware ``datetime`` in Python."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Return the type of a value beside an operator: a ``timedelta`` is no instant."""
        found = self.impl_instance.coerce_compared_value(op, value)
        return self if found is self.impl_instance else found


class JSON(_Type):
    """JSON that operators can compare in parts."""

    impl = sa.JSON
    cache_ok = True


class TxId(_Type):
    """A number that grows with each transaction that changes a row, by which an owner finds changes."""

    impl = sa.BigInteger
    cache_ok = True


def insert(bind: sa.Connection | sa.Engine, into: Any) -> Any:
    """Return an INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``, in the database's own SQL."""
    return dialect_of(bind).insert(into)
