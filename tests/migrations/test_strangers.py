"""Tables of another application with our names: nothing is changed, and our code does not use them."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from support.commands import Run, runner
from support.databases import Database

from relay.platform import migrations
from relay.platform.database import Database as Target

STRANGERS = {
    "a table": ("outbox_delivery", "CREATE TABLE outbox_delivery (mine integer)"),
    "a view": ("outbox_history", "CREATE VIEW outbox_history AS SELECT 1 AS mine"),
    "an index": ("outbox_message_ready", "CREATE INDEX outbox_message_ready ON theirs (mine)"),
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capfd)


def created(database: Database, *statements: str) -> None:
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_has_the_name_of_something_of_the_outbox_is_refused_by_name(
    empty_database: Database, run: Run, stranger: str
) -> None:
    name, statement = STRANGERS[stranger]
    created(empty_database, "CREATE TABLE theirs (mine integer)", statement)
    before = sa.inspect(empty_database.engine).get_table_names()
    ended = run("db", "upgrade", url=empty_database.url)
    assert ended.returncode == 3, ended.report()
    assert name in ended.stderr
    assert "the outbox did not create" in ended.stderr
    assert "OUTBOX_SCHEMA" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sa.inspect(empty_database.engine).get_table_names() == before


ON_POSTGRES = {
    "a sequence named outbox_wake": "CREATE SEQUENCE outbox_wake",
    "a type named outbox_rate": "CREATE TYPE outbox_rate AS ENUM ('low', 'high')",
    "a type named outbox_turn": "CREATE TYPE outbox_turn AS (turn integer)",
    "a function named outbox_uuid7": "CREATE FUNCTION outbox_uuid7() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "a function named outbox_take_turns": "CREATE FUNCTION outbox_take_turns(text[]) RETURNS int RETURN 1",
    "an index named extractions_of_content": "CREATE INDEX extractions_of_content ON theirs (mine)",
}
EVERYWHERE = {
    "a table named outbox_message": "CREATE TABLE outbox_message (mine integer)",
    "a table named extractions": "CREATE TABLE extractions (mine integer)",
    "a view named outbox_relay": "CREATE VIEW outbox_relay AS SELECT 1 AS mine",
    "an index named outbox_message_due": "CREATE INDEX outbox_message_due ON theirs (mine)",
    "an index named extractions_latest": "CREATE INDEX extractions_latest ON theirs (mine)",
}


def plan_and_upgrade_refuse(database: Database, run: Run, said: str) -> None:
    planned = run("db", "upgrade", "--plan", url=database.url)
    assert planned.returncode == 3, planned.report()
    assert f"already has {said}, which the outbox did not create" in planned.stderr
    assert run("db", "upgrade", url=database.url).stderr == planned.stderr


@pytest.mark.parametrize("said", EVERYWHERE)
def test_a_plan_refuses_what_the_upgrade_refuses_in_the_same_words(
    empty_database: Database, run: Run, said: str
) -> None:
    created(empty_database, "CREATE TABLE theirs (mine integer)", EVERYWHERE[said])
    plan_and_upgrade_refuse(empty_database, run, said)


@pytest.mark.parametrize("said", ON_POSTGRES)
def test_a_plan_also_refuses_what_only_postgresql_has(empty_postgres: Database, run: Run, said: str) -> None:
    created(empty_postgres, "CREATE TABLE theirs (mine integer)", ON_POSTGRES[said])
    plan_and_upgrade_refuse(empty_postgres, run, said)


def test_a_refusal_names_all_that_is_in_the_way(empty_postgres: Database, run: Run) -> None:
    created(empty_postgres, "CREATE TABLE outbox_meta (mine integer)", "CREATE SEQUENCE outbox_wake")
    plan_and_upgrade_refuse(empty_postgres, run, "objects (sequence, table) named outbox_meta, outbox_wake")


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
