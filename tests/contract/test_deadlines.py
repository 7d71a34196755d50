"""A question is answered in time or not at all: one long query, many short ones, and a cursor read page by page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import Database

from outbox_cli.dashboard.reader import Reader
from relay.admin.access.deadline import TooMuch
from relay.settings import Settings

NUMBERS = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count) "
LONG = 50_000_000  # numbers: tens of seconds


@pytest.fixture
def reader(database: Database) -> Iterator[Reader]:
    found = Reader(Settings(database_url=database.url))
    yield found
    found.close()


def one_query(connection: sa.Connection) -> object:
    return connection.scalar(sa.text(NUMBERS + "SELECT count(*) FROM numbers"), {"count": LONG})


def many_queries(connection: sa.Connection) -> object:
    while True:
        connection.scalar(sa.text("SELECT 1"))


def many_pages(connection: sa.Connection) -> object:
    rows = connection.execute(
        sa.text(NUMBERS + "SELECT n FROM numbers"), {"count": LONG}, execution_options={"yield_per": 10}
    )
    return [connection.scalar(sa.text("SELECT 1")) for _ in rows.partitions()]


@pytest.mark.parametrize("question", [one_query, many_queries, many_pages])
def test_a_question_that_takes_too_long_is_given_up(
    reader: Reader, question: Callable[[sa.Connection], object]
) -> None:
    with pytest.raises(TooMuch):
        reader.ask("long", question, timeout_s=0.2)
    assert reader.ask("short", lambda connection: connection.scalar(sa.text("SELECT 7")), timeout_s=60) == 7


def test_the_next_question_has_all_its_time(reader: Reader) -> None:
    with pytest.raises(TooMuch):
        reader.ask("long", many_queries, timeout_s=0.01)
    query = sa.text(NUMBERS + "SELECT count(*) FROM numbers")
    found = reader.ask("short", lambda connection: connection.scalar(query, {"count": 100_000}), timeout_s=60)
    assert found == 100_000


def test_a_cheaper_question_is_asked_if_the_exact_one_takes_too_long(reader: Reader) -> None:
    def cheaper(connection: sa.Connection) -> object:
        return connection.scalar(sa.text("SELECT 'about'"))

    assert reader.ask_or("key", many_queries, cheaper, timeout_s=0.05) == "about"
    assert reader.ask_or("other", lambda connection: connection.scalar(sa.text("SELECT 7")), cheaper, timeout_s=60) == 7


def test_a_rollback_that_was_ended_too_counts_as_taking_too_long(postgres_database: Database) -> None:
    def question(connection: sa.Connection) -> object:
        with contextlib.suppress(sa.exc.ProgrammingError):
            connection.scalar(sa.text("SELECT nothing"))
        return connection.scalar(sa.text("SELECT 1"))

    reader = Reader(Settings(database_url=postgres_database.url))
    with pytest.raises(TooMuch):
        reader.ask("failed", question)
    reader.close()


def test_a_limit_that_was_ended_too_counts_as_taking_too_long(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set while the previous one still holds, which may be a millisecond."""

    def ended(connection: sa.Connection, left_s: float | None) -> None:
        if left_s is not None:
            driver: Any = connection.connection.driver_connection
            driver.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")

    reader = Reader(Settings(database_url=postgres_database.url))
    monkeypatch.setattr("relay.databases.postgresql.dialect.limit", ended)
    with pytest.raises(TooMuch):
        reader.ask("short", lambda connection: connection.scalar(sa.text("SELECT 7")))
    reader.close()
