"""The types of columns: each statement has those of the database that it runs on."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from outbox.tables import Instant, tables

MESSAGE = tables().message.c
OLD = sa.select(MESSAGE.id).where(MESSAGE.id == "x", MESSAGE.created_at < datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("dialect", "of_id", "of_instant"),
    [
        (postgresql.dialect(), sa.Uuid, sa.DateTime),
        (sqlite.dialect(), sa.String, sa.TypeDecorator),
    ],
    ids=["postgresql", "sqlite"],
)
def test_a_column_has_the_type_of_its_database(
    dialect: sa.Dialect, of_id: type[sa.types.TypeEngine], of_instant: type[sa.types.TypeEngine]
) -> None:
    assert isinstance(MESSAGE.id.type.dialect_impl(dialect).impl_instance, of_id)
    assert isinstance(MESSAGE.created_at.type.dialect_impl(dialect).impl_instance, of_instant)


@pytest.mark.parametrize("dialect", [None, mysql.dialect()], ids=["no database", "no outbox"])
def test_a_statement_can_be_printed_for_a_database_that_can_hold_no_outbox(dialect: sa.Dialect | None) -> None:
    assert "created_at < " in str(OLD.compile(dialect=dialect))


def test_a_duration_beside_an_instant_is_no_instant() -> None:
    earlier = MESSAGE.created_at - timedelta(days=1)
    assert isinstance(earlier.right.type, sa.Interval)
    assert isinstance((MESSAGE.created_at < datetime.now(UTC)).right.type, Instant)
