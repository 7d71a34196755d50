"""The types of the outbox's columns, and what is fixed about its tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from outbox.writing.dialects.dialect import dialect_named, dialect_of

SHARD_COUNT = 64
INBOX = "inbox_message"

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
BigInt = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class Xid8(sa.types.UserDefinedType[int]):
    """PostgreSQL's ``xid8``: a transaction id that never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


class JSON(sa.TypeDecorator[Any]):
    """JSON that operators can compare in parts: PostgreSQL's ``jsonb``."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(dialect_named(dialect.name).JSON)


class _UtcText(sa.TypeDecorator[datetime]):
    """A point in time, as text in UTC, for SQLite."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


# A point in time: an aware ``datetime`` in Python.
Instant = sa.DateTime(timezone=True).with_variant(_UtcText(), "sqlite")


def insert(bind: sa.Connection | sa.Engine, into: Any) -> Any:
    """Return an INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``, in the database's own SQL."""
    return dialect_of(bind).insert(into)


# PostgreSQL's transaction id. On SQLite, where commits come one after another, a counter of changes.
TxId = Xid8().with_variant(sa.Integer(), "sqlite")
