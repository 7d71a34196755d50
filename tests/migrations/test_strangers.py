"""Tables of another application with our names: nothing is changed, and our code does not use them."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from support.commands import Run, runner
from support.databases import Database

from relay.databases import migrations
from relay.databases.database import Database as Target


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capfd)


def created(database: Database, *statements: str) -> None:
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


EVERYWHERE = {
    "outbox_message": "CREATE TABLE outbox_message (mine integer)",
    "extractions": "CREATE TABLE extractions (mine integer)",
    "outbox_history": "CREATE VIEW outbox_history AS SELECT 1 AS mine",
    "outbox_message_due": "CREATE INDEX outbox_message_due ON theirs (mine)",
    "extractions_latest": "CREATE TABLE extractions_latest (mine integer)",  # of an index of ours
}
ON_POSTGRES = {
    "outbox_wake": "CREATE SEQUENCE outbox_wake",
    "outbox_rate": "CREATE TYPE outbox_rate AS ENUM ('low', 'high')",
    "outbox_turn": "CREATE TYPE outbox_turn AS (turn integer)",
    "outbox_uuid7": "CREATE FUNCTION outbox_uuid7() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "outbox_take_turns": "CREATE FUNCTION outbox_take_turns(text[]) RETURNS int RETURN 1",
    "extractions_of_content": "CREATE INDEX extractions_of_content ON theirs (mine)",
}


def refuses(database: Database, run: Run, name: str, statement: str) -> None:
    created(database, "CREATE TABLE theirs (mine integer)", statement)
    before = sa.inspect(database.engine).get_table_names()
    ended = run("db", "upgrade", url=database.url)
    assert ended.returncode == 3, ended.report()
    assert name in ended.stderr
    assert "the outbox did not create" in ended.stderr
    assert "OUTBOX_SCHEMA" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sa.inspect(database.engine).get_table_names() == before


@pytest.mark.parametrize("name", EVERYWHERE)
def test_what_has_the_name_of_something_of_ours_is_refused_by_name(
    empty_database: Database, run: Run, name: str
) -> None:
    refuses(empty_database, run, name, EVERYWHERE[name])


@pytest.mark.parametrize("name", ON_POSTGRES)
def test_what_only_postgresql_has_is_refused_by_name_too(empty_postgres: Database, run: Run, name: str) -> None:
    refuses(empty_postgres, run, name, ON_POSTGRES[name])


def test_a_function_of_other_arguments_is_not_in_the_way(empty_postgres: Database) -> None:
    created(empty_postgres, "CREATE FUNCTION outbox_emit(integer) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    database = Target.parse(empty_postgres.url)
    assert migrations.planned(database) == ["outbox_0001", "content_0001"]
    assert migrations.upgrade(empty_postgres.url) == ["content_0001", "outbox_0001"]


def test_a_schema_of_its_own_has_no_strangers_in_it(empty_postgres: Database) -> None:
    created(empty_postgres, "CREATE TABLE outbox_message (mine integer)", "CREATE TABLE extractions (mine integer)")
    database = Target.parse(empty_postgres.url, schema="messaging")
    assert migrations.planned(database) == ["outbox_0001", "content_0001"]
    assert migrations.upgrade(empty_postgres.url, schema="messaging") == ["content_0001", "outbox_0001"]


@pytest.mark.parametrize("has_tables_of_its_own", [True, False])
@pytest.mark.parametrize(
    "command",
    [["relay", "--drain"], ["consume"], ["serve", "--port", "0"], ["extract", "text.txt"], ["content", "missing"]],
    ids=" ".join,
)
def test_nothing_of_ours_works_on_an_applications_own_content(
    empty_database: Database, run: Run, tmp_path: Path, command: list[str], has_tables_of_its_own: bool
) -> None:
    (tmp_path / "text.txt").write_text("An outbox keeps messages.")
    if has_tables_of_its_own:
        created(empty_database, *(f"CREATE TABLE {name} (id text)" for name in ("contents", "extractions")))
    migrations.upgrade(empty_database.url, only="outbox")
    environ = {"OUTBOX_HEALTH_PORT": "0", "INTERNAL_API_SECRET": "s" * 40}
    if command == ["consume"]:
        environ["AMQP_URL"] = "amqp://127.0.0.1:1/"
    ended = run(*command, url=empty_database.url, **environ)
    assert ended.returncode == 3, ended.report()
    assert "need tables named contents, extractions, topic_graphs" in ended.stderr
    assert "Traceback" not in ended.stderr
