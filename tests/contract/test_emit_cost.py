"""What `emit` costs a worker in Python, counted in calls: beside the same INSERT written by hand."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from outbox import emit, emit_many
from outbox.checks.ids import new_id

INSERT = "INSERT INTO outbox_message (id, type, source, data) VALUES (:id, 'page.read', 'sql', CAST(:data AS json))"


def calls(work: Callable[[], object]) -> int:
    """Return the number of calls, of Python's and of C's functions."""
    count = 0

    def counted(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture
def connection(postgres_database, monkeypatch):
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)  # another test of this process traces
    with postgres_database.engine.connect() as connection:
        yield connection


def test_an_emit_takes_few_more_calls_than_the_same_insert_by_hand(connection):
    """Measured: 29 more."""

    def by_hand() -> None:
        connection.execute(sa.text(INSERT), {"id": new_id(), "data": '{"n": 1}'})

    def by_us() -> None:
        emit(connection, "page.read", {"n": 1})

    for way in (by_hand, by_us):
        for _ in range(10):  # by then the driver has prepared the statement
            way()
    assert calls(by_us) < calls(by_hand) + 36


def test_the_text_of_the_statement_is_kept(connection):
    """SQLAlchemy's search for it, and its conversion of parameters that need none, were a tenth of an emit."""
    searches: list[Any] = []
    sa.event.listen(connection, "before_cursor_execute", lambda *given: searches.append(given[4].compiled))
    emit(connection, "page.read", {}, ordering_key="k", subject="s", headers={"x-a": "b"}, delay=1, expires_in=1)
    emit(connection, "page.read", {})
    assert searches == [None, None]


def test_one_of_many_messages_takes_few_calls(connection):
    def cost(count: int) -> int:
        items = [("page.read", {"n": n}) for n in range(count)]
        return calls(lambda: emit_many(connection, items))

    cost(10)
    assert (cost(300) - cost(100)) / 200 < 38  # measured: 33


def test_a_hook_that_changes_statements_sees_the_message(connection):
    seen: list[Any] = []
    sa.event.listen(connection, "before_execute", lambda _, statement, *__: seen.append(statement))
    emit(connection, "page.read", {})
    assert [type(each) for each in seen] == [sa.Insert]


def test_a_schema_translate_map_is_followed_by_one_message(postgres_database):
    from relay.databases.migrations import upgrade

    upgrade(postgres_database.url, schema="tenant_1", only="outbox")
    with postgres_database.engine.begin() as connection:
        emit(connection, "page.read", {"tenant": 0})
    mapped = postgres_database.engine.execution_options(schema_translate_map={None: "tenant_1"})
    with mapped.begin() as connection:
        emit(connection, "page.read", {"tenant": 1})
    assert postgres_database.scalar("SELECT data ->> 'tenant' FROM tenant_1.outbox_message") == "1"
