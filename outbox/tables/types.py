"""The types of the outbox's columns, and what is fixed about its tables."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import sqlalchemy as sa

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
    """JSON, stored as PostgreSQL's ``jsonb``. Its dialect is imported only where it is used."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name != "postgresql":
            return super().load_dialect_impl(dialect)
        from sqlalchemy.dialects.postgresql import JSONB

        return dialect.type_descriptor(JSONB())


class Instant(sa.TypeDecorator[datetime]):
    """A point in time: ``timestamptz`` on PostgreSQL, UTC text on SQLite, an aware ``datetime`` in Python."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def insert(bind: sa.Connection | sa.Engine, into: Any) -> Any:
    """Return an INSERT in the database's own dialect, which has ON CONFLICT; only that dialect is imported."""
    return import_module(f"sqlalchemy.dialects.{bind.dialect.name}").insert(into)


# PostgreSQL's transaction id. On SQLite, where commits come one after another, a counter of changes.
TxId = Xid8().with_variant(sa.Integer(), "sqlite")
