"""Tables of another application with our names: nothing is changed, and our code does not use them."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from support.commands import Run, runner
from support.databases import Database

from outbox.errors import SchemaError
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
def test_what_is_called_like_something_of_the_outbox_is_refused_by_name(
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


def test_a_function_of_that_name_is_refused_too(empty_postgres: Database, run: Run) -> None:
    created(empty_postgres, "CREATE FUNCTION outbox_uuid7() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'")
    ended = run("db", "upgrade", url=empty_postgres.url)
    assert (ended.returncode, "outbox_uuid7" in ended.stderr) == (3, True), ended.report()
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["outbox_message", "extractions"])
def test_a_plan_refuses_what_the_upgrade_refuses_in_the_same_words(
    empty_database: Database, run: Run, name: str
) -> None:
    created(empty_database, f"CREATE TABLE {name} (mine integer)")
    planned = run("db", "upgrade", "--plan", url=empty_database.url)
    assert planned.returncode == 3, planned.report()
    assert f"named {name}, which the outbox did not create" in planned.stderr
    with pytest.raises(SchemaError, match=name):
        migrations.upgrade(empty_database.url)


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
