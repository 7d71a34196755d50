"""Values that go over the wire arrive unchanged, and no notification of the server is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest
from support.databases import Database

from relay.databases.database import Database as Address
from relay.databases.postgresql.connections.engines import conninfo
from relay.databases.postgresql.store import arrays
from relay.databases.postgresql.store.executor import Executor
from relay.databases.postgresql.store.session import PostgresSession, PostgresStore


@pytest.fixture
def ask(postgres_database: Database) -> Iterator[Executor]:
    with psycopg.connect(conninfo(Address.parse(postgres_database.url).url), autocommit=True) as connection:
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


@pytest.mark.parametrize("count", [0, 1, 300])
def test_ids_and_addresses_arrive_in_binary_format(ask: Executor, count: int) -> None:
    ids = [str(uuid4()) for _ in range(count)]
    places = [f"({4294967294 - n},{n})" for n in range(count)]
    sent = ask("SELECT tidsend(t)::text FROM unnest(%(places)s::tid[]) AS s (t)", {"places": places}).fetchall()
    for _ in range(3):
        values = {"ids": arrays.uuids(ids), "addresses": arrays.addresses([text for (text,) in sent])}
        row = ask("SELECT %(ids)s::uuid[]::text[]::text, %(addresses)s::tid[]::text[]::text", values).fetchone()
        assert row == (arrays.text(ids).replace('"', ""), arrays.text(places))


def test_an_answer_does_not_wait_for_the_statements_behind_it(ask: Executor, postgres_database: Database) -> None:
    ask("SET lock_timeout = '20s'", {})
    with postgres_database.engine.connect() as other:
        other.exec_driver_sql("SELECT pg_advisory_lock(1)")
        first = ask.ahead("SELECT %(n)s::int", {"n": 1})
        second = ask.ahead("SELECT 2 FROM pg_advisory_lock(1)", {})
        assert ask.answer(first).fetchone() == (1,)
        other.exec_driver_sql("SELECT pg_advisory_unlock(1)")
    assert ask.answer(second).fetchone() == (2,)
    assert ask("SELECT 3", {}).fetchone() == (3,)


@pytest.mark.parametrize("rows", [1, 5_000])
def test_a_large_answer_arrives_whole_while_another_statement_waits(ask: Executor, rows: int) -> None:
    text = "x" * 400
    for _ in range(2):
        large = ask.ahead("SELECT n, %(t)s FROM generate_series(1, %(n)s) AS n", {"t": text, "n": rows}, is_large=True)
        behind = ask.ahead("SELECT %(all)s::text[] = %(all)s::text[]", {"all": [text] * rows})
        assert ask.answer(large).fetchall() == [(n, text) for n in range(1, rows + 1)]
        assert ask.answer(behind).fetchone() == (True,)


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
        session.connection.run("SELECT pg_notify('outbox_wake', current_schema())")  # comes with this answer
        assert session.waking.wait(0, wake_fd)
        assert not session.waking.wait(0, wake_fd)
        os.close(wake_fd)
        os.close(other_end)
