"""Values that go over the wire as text arrive unchanged, and no notification of the server is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from support.databases import Database

from relay.platform.database import Database as Address
from relay.store.postgres.executor import Executor
from relay.store.postgres.session import PostgresSession, PostgresStore


@pytest.fixture
def ask(postgres_database: Database) -> Iterator[Executor]:
    with psycopg.connect(Address.parse(postgres_database.url).conninfo, autocommit=True) as connection:
        yield Executor(connection)


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["plain"],
        ["", "NULL", "null", "{}", ","],
        ['"', '"",""', "\\", '\\"', "a\\b"],
        ["ключ", "鍵", "\U0001f511", "a\tb\nc"],
        ["with", None, 'and "quotes"'],
    ],
)
def test_texts_arrive_as_they_were(ask: Executor, texts: list[str | None]) -> None:
    for _ in range(3):  # not prepared, prepared by this call, prepared before
        rows = ask("SELECT t FROM unnest(%(texts)s::text[]) AS s (t)", {"texts": texts}).fetchall()
        assert [row[0] for row in rows] == texts


def test_numbers_and_truths_arrive_as_they_were(ask: Executor) -> None:
    statement = "SELECT %(n)s::bigint, %(f)s::float8, %(yes)s::boolean, %(none)s::text, %(ns)s::bigint[], 7 %% 4"
    parameters = {"n": -(2**62), "f": 0.1, "yes": True, "none": None, "ns": [1, 2**40]}
    for _ in range(3):
        assert ask(statement, parameters).fetchone() == (-(2**62), 0.1, True, None, [1, 2**40], 3)


def test_a_text_that_the_server_would_cut_off_is_refused(ask: Executor) -> None:
    for value in ("a\0b", ["a\0b"]):
        with pytest.raises(psycopg.DataError):
            ask("SELECT %(value)s", {"value": value})


def test_an_error_is_the_one_that_psycopg_raises_and_the_next_question_is_answered(ask: Executor) -> None:
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            ask("SELECT 1 / %(n)s::int", {"n": 0})
    assert ask("SELECT 1 / %(n)s::int", {"n": 1}).fetchone() == (1,)


def test_what_is_asked_ahead_goes_before_what_is_asked_next_and_is_a_transaction_of_its_own(ask: Executor) -> None:
    ask("CREATE TEMPORARY TABLE note (text text)", {})
    write = "INSERT INTO note VALUES (%(text)s)"
    for text in ("one", "two"):
        written = ask.ahead(write, {"text": text})
        failed = ask.ahead("SELECT 1 / %(n)s::int", {"n": 0})
        assert ask("SELECT text FROM note ORDER BY text", {}).fetchall()[-1] == (text,)
        assert ask.answer(written).rowcount == 1
        with pytest.raises(psycopg.errors.DivisionByZero):
            ask.answer(failed)
    written = ask.ahead(write, {"text": "three"})
    with pytest.raises(psycopg.errors.DivisionByZero):
        ask("SELECT 1 / %(n)s::int", {"n": 0})
    assert ask.answer(written).rowcount == 1
    assert ask("SELECT count(*) FROM note", {}).fetchone() == (3,)


def test_a_read_ahead_with_nothing_after_it_is_sent_when_its_result_is_needed(ask: Executor) -> None:
    rows = ask.ahead("SELECT repeat('x', 100) FROM generate_series(1, %(n)s)", {"n": 20_000})
    assert len(ask.answer(rows).fetchall()) == 20_000


def test_a_statement_and_an_answer_larger_than_any_buffer_pass_each_other(ask: Executor) -> None:
    texts = ["x" * 1000] * 20_000
    echo = "SELECT t FROM unnest(%(texts)s::text[]) AS s (t)"
    first = ask.ahead(echo, {"texts": texts})
    assert [row[0] for row in ask(echo, {"texts": texts})] == texts
    assert [row[0] for row in ask.answer(first)] == texts


def test_a_server_that_hangs_up_over_what_was_asked_ahead_says_why(ask: Executor) -> None:
    ask.ahead("SELECT pg_terminate_backend(pg_backend_pid())", {})
    with pytest.raises(psycopg.errors.AdminShutdown):
        ask("SELECT 1", {})
    with pytest.raises(psycopg.OperationalError):
        ask("SELECT 1", {})


def test_a_server_that_hangs_up_is_an_operational_error(ask: Executor) -> None:
    with pytest.raises(psycopg.OperationalError):
        ask("SELECT pg_terminate_backend(pg_backend_pid())", {})
    with pytest.raises(psycopg.OperationalError):
        ask("SELECT 1", {})


def test_a_notification_that_comes_along_with_an_answer_wakes_the_relay_all_the_same(
    postgres_database: Database,
) -> None:
    store = PostgresStore(Address.parse(postgres_database.url), lease_s=60, keep_history=True, notify=True)
    session: PostgresSession
    with closing(store.open("relay-1")) as session:
        wake_fd, other_end = os.pipe()
        session._run("SELECT pg_notify('outbox_wake', current_schema())")  # comes with this answer
        assert session.wait(0, wake_fd)
        assert not session.wait(0, wake_fd)
        os.close(wake_fd)
        os.close(other_end)
