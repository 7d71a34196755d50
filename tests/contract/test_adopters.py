"""An adopter's tests create and empty our tables without a migration and without a relay."""

import subprocess
import sys

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from support.databases import Database

from outbox import InvalidTarget, Outbox, OutboxError, emit, emit_async, once
from outbox.tables import metadata, tables
from outbox.testing import drain, empty
from relay.databases import migrations


def names(engine: sa.Engine, schema: str | None = None) -> set[str]:
    return set(sa.inspect(engine).get_table_names(schema))


@pytest.mark.parametrize("schema", [None, "messaging"])
def test_create_all_makes_what_the_migrations_make(empty_database: Database, schema: str | None) -> None:
    if schema is not None and empty_database.kind == "sqlite":
        return  # SQLite has no schemas
    engine = empty_database.sync_engine()
    metadata(schema).create_all(engine)
    metadata(schema).create_all(engine)  # a second call does no harm
    assert {"outbox_message", "inbox_message", "outbox_alembic_version"} <= names(engine, schema)
    assert migrations.upgrade(empty_database.url, schema=schema, only="outbox") == []
    with engine.begin() as connection:
        path = connection.scalar(sa.text("SHOW search_path")) if empty_database.kind == "postgres" else ""
        assert "messaging" not in path
        Outbox(schema=schema).emit(connection, "page.read", {"n": 1}, ordering_key="k")
    metadata(schema).drop_all(engine)
    metadata(schema).drop_all(engine)
    assert names(engine, schema) == set()


def test_what_create_all_made_works_like_what_was_migrated(empty_database: Database) -> None:
    engine = empty_database.sync_engine()
    metadata().create_all(engine)
    seen = []
    with Session(engine) as session, session.begin():
        emit(session, "page.read", {"n": 1})
    assert drain(engine, lambda message: seen.append(message.data["n"])).delivered == 1
    assert seen == [1]


def test_it_is_made_in_the_transaction_of_a_connection(empty_database: Database) -> None:
    with empty_database.engine.connect() as connection:
        metadata().create_all(connection)
        emit(connection, "page.read", {})
        assert connection.scalar(sa.text("SELECT count(*) FROM outbox_message")) == 1
        connection.rollback()
    if empty_database.kind == "postgres":  # Python's sqlite3 commits before each statement that changes tables
        assert names(empty_database.engine) == set()


async def test_it_is_made_on_an_async_connection_too(empty_database: Database) -> None:
    async with empty_database.async_engine().begin() as connection:
        await connection.run_sync(metadata().create_all)
        await emit_async(connection, "page.read", {})


def test_a_database_in_memory_is_enough() -> None:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    metadata().create_all(engine)
    with Session(engine) as session, session.begin():
        emit(session, "page.read", {})
        assert once(session, "reports", "m-1")
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables().message)) == 1
    engine.dispose()


def test_empty_leaves_it_as_it_was_after_its_migration(database: Database) -> None:
    with database.engine.begin() as connection:
        emit(connection, "page.read", {})
        emit(connection, "page.other", {})
        once(connection, "reports", "m-1")
    drain(database.engine, lambda message: None, events=["page.read"])
    for target in (database.url, database.engine):
        empty(target)
    for name in ("outbox_message", "outbox_delivery", "outbox_history", "outbox_destination", "inbox_message"):
        assert database.scalar(f"SELECT count(*) FROM {name}") == 0
    assert database.scalar("SELECT count(*) FROM outbox_shard WHERE NOT dirty") == 64
    with database.engine.begin() as connection:
        emit(connection, "page.read", {})
    assert drain(database.engine, lambda message: None).delivered == 1
    with pytest.raises(OutboxError, match="run_sync"):
        empty(database.async_engine())  # type: ignore[arg-type]


ADOPTERS_TEST = """
import pytest, sqlalchemy as sa
from outbox import emit
from outbox.tables import metadata

@pytest.fixture(scope="session")
def outbox_database():
    engine = sa.create_engine("sqlite:///{path}")
    metadata().create_all(engine)
    yield engine
    engine.dispose()

@pytest.mark.parametrize("time", [1, 2])
def test_it(outbox_emptied, time):
    with outbox_emptied.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM outbox_message")) == 0
        emit(connection, "page.read", {{"n": time}})
"""


def test_pytest_has_a_fixture_that_empties_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["outbox.testing"]\n')
    (tmp_path / "test_adopter.py").write_text(ADOPTERS_TEST.format(path=tmp_path / "a.db"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------ drivers


async def test_a_connection_of_a_driver_is_refused_with_what_to_execute_on_it(postgres_database: Database) -> None:
    import asyncpg
    import psycopg

    url = sa.make_url(postgres_database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as plain, pytest.raises(InvalidTarget, match="SELECT outbox_emit"):
        emit(plain, "page.read", {})  # type: ignore[call-overload]
    async with await psycopg.AsyncConnection.connect(url) as other:
        with pytest.raises(InvalidTarget, match="SELECT outbox_emit"):
            await emit_async(other, "page.read", {})  # type: ignore[call-overload]
    third = await asyncpg.connect(url)
    try:
        with pytest.raises(InvalidTarget, match="SELECT outbox_emit"):
            await emit_async(third, "page.read", {})
        async with third.transaction():
            await third.execute("SELECT outbox_emit('page.read', '{\"n\": 1}')")  # as the message says
    finally:
        await third.close()
    assert postgres_database.scalar("SELECT count(*) FROM outbox_message") == 1
