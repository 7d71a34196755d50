"""The command line as an operator and a script meet it: real processes, both databases."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from support.commands import Run
from support.databases import Database
from support.ports import free_port
from support.processes import Spawner

from outbox import emit
from outbox_cli.app import command_line

PROJECT = Path(__file__).parents[2]

# ------------------------------------------------------------------------------------------------ help and errors


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return every command and group of commands, by its words."""
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


ALL_COMMANDS = [*commands(typer.main.get_command(command_line()))]
GROUPS = {path[:-1] for path in ALL_COMMANDS if path}


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=" ".join)
def test_every_command_explains_itself(run: Run, command: tuple[str, ...]) -> None:
    process = run(*command, "--help")
    assert process.returncode == 0
    assert f"outbox {' '.join(command)}".strip() in process.stdout
    assert "$ outbox" in process.stdout or command in GROUPS
    assert "[[" not in process.stdout, "the library puts brackets around an optional argument"
    assert "\x1b" not in process.stdout


def test_the_exit_codes_are_in_the_help(run: Run) -> None:
    said = " ".join(run("--help").stdout.split())
    for code in ("0 ok", "1 failed", "2 wrong usage", "3 cannot work here", "4 unhealthy", "130 interrupted"):
        assert code in said


def test_the_version_is_one_line_on_stdout(run: Run) -> None:
    assert re.fullmatch(r"neverlost \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize(
    "arguments", [["statsu"], ["status", "--jsno"], ["emit", "x"], ["status", "--fail-if-older", "soon"]]
)
def test_wrong_usage_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    process = run(*arguments)
    assert process.returncode == 2
    assert process.stdout == ""
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"], ["relays"], ["db", "check"], ["messages", "list"], ["emit", "a.b", "{}"], ["relay"],
        ["relay", "--drain"], ["content", "missing"], ["extract", "."],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_command_but_demo_and_upgrade_creates_a_database(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    for environ in ({}, {"OUTBOX_DATABASE_URL": "sqlite:///somewhere.db"}):
        process = run(*arguments, **environ)
        assert process.returncode == 3, process.report()
        assert str(tmp_path / ("somewhere.db" if environ else "outbox.db")) in process.stderr
        assert "OUTBOX_DATABASE_URL" in process.stderr
        assert "Traceback" not in process.stderr
    assert list(tmp_path.glob("*.db*")) == []


@pytest.mark.parametrize(
    "arguments", [["status"], ["db", "upgrade"], ["relay", "--drain"], ["emit", "a.b", "{}"]], ids=" ".join
)
def test_a_database_out_of_reach_is_a_sentence_without_its_password(run: Run, arguments: list[str]) -> None:
    process = run(*arguments, url=f"postgresql://app:hunter2@127.0.0.1:{free_port()}/app")
    assert process.returncode == 3
    assert "Connection refused" in process.stderr
    assert "postgresql://app:***@127.0.0.1" in process.stderr
    assert "DATABASE_URL" in process.stderr
    assert "hunter2" not in process.stderr + process.stdout
    assert "Traceback" not in process.stderr


def test_a_database_without_our_tables_says_what_to_run(run: Run, empty_postgres: Database) -> None:
    process = run("status", url=empty_postgres.url)
    assert process.returncode == 3
    assert "outbox db upgrade" in process.stderr


def test_a_misspelled_variable_is_exit_code_3(run: Run) -> None:
    process = run("config", "show", OUTBOX_LEASE="3")
    assert process.returncode == 3
    assert "OUTBOX_LEASE_S" in process.stderr


def test_a_missing_right_is_named_with_the_command_that_prints_the_rights(
    run: Run, postgres_database: Database
) -> None:
    role = "no_role_" + postgres_database.url.rsplit("_", 1)[-1]
    postgres_database.execute(f"CREATE ROLE {role} LOGIN")
    url = postgres_database.url.replace("postgres@", f"{role}@")
    process = run("status", url=url)
    assert process.returncode == 3, process.report()
    assert f"the role {role} lacks SELECT on public.outbox_message" in process.stderr
    assert "outbox db grants" in process.stderr


# ------------------------------------------------------------------------------------------------ db


def test_upgrade_creates_the_database_and_may_be_repeated(run: Run, empty_database: Database) -> None:
    assert (
        "outbox_0001" in run("db", "upgrade", "--plan", url=empty_database.url).stdout
        or empty_database.kind == "sqlite"
    )
    assert run("db", "check", url=empty_database.url).returncode == 3
    first = run("db", "upgrade", url=empty_database.url)
    assert first.stdout.split() == ["content_0001", "outbox_0001"]
    again = run("db", "upgrade", url=empty_database.url)
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to do" in again.stderr
    assert run("db", "check", url=empty_database.url).returncode == 0


def test_a_plan_changes_nothing(run: Run, empty_sqlite: Database, tmp_path: Path) -> None:
    process = run("db", "upgrade", "--plan", url=empty_sqlite.url)
    assert process.returncode == 0
    assert "would create" in process.stderr
    assert list(tmp_path.glob("*.db")) == []


def test_upgrade_can_leave_the_content_tables_out(run: Run, empty_database: Database) -> None:
    run("db", "upgrade", "--only", "outbox", url=empty_database.url)
    with pytest.raises(Exception, match="topic_graphs"):
        empty_database.scalar("SELECT count(*) FROM topic_graphs")


def test_the_printed_sql_makes_the_same_tables(run: Run, empty_postgres: Database) -> None:
    printed = run("db", "sql").stdout
    with psycopg.connect(empty_postgres.url, autocommit=True) as connection:
        connection.execute(printed)
    assert run("db", "check", url=empty_postgres.url).returncode == 0


def test_the_schema_that_is_configured_is_that_of_the_printed_sql_and_of_alembic(
    run: Run, spawn: Spawner, empty_postgres: Database
) -> None:
    assert 'CREATE SCHEMA IF NOT EXISTS "messaging"' in run("db", "sql", OUTBOX_SCHEMA="messaging").stdout
    env = {"DATABASE_URL": empty_postgres.url, "OUTBOX_SCHEMA": "messaging"}
    alembic = spawn("alembic", "-c", str(PROJECT / "pyproject.toml"), "upgrade", "heads", env=env)
    assert alembic.wait() == 0, alembic.stderr
    assert run("db", "check", url=empty_postgres.url, OUTBOX_SCHEMA="messaging").returncode == 0
    assert empty_postgres.scalar("SELECT to_regclass('public.outbox_message')") is None


def test_grants_name_the_given_roles(run: Run) -> None:
    said = run("db", "grants", "--worker", "app", "--relay", "mover", "--schema", "messaging").stdout
    columns = "id, type, source, subject, ordering_key, data, headers, due_at, state, expires_at"
    assert f"GRANT INSERT ({columns}) ON messaging." in said
    assert "messaging.topic_graphs TO mover;" in said


def test_grants_quote_every_name_of_a_role_or_schema(run: Run, empty_postgres: Database) -> None:
    schema, role = "100%", f"w%{empty_postgres.url.rpartition('_')[2]}"
    assert run("db", "upgrade", url=empty_postgres.url, OUTBOX_SCHEMA=schema).returncode == 0
    empty_postgres.execute(f'CREATE ROLE "{role}"')
    said = run("db", "grants", "--worker", role, "--relay", role, "--schema", schema).stdout
    assert f'TO "{role}";' in said
    with psycopg.connect(empty_postgres.url, autocommit=True) as connection:
        connection.execute(said)
        connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
    printed = run("db", "sql", "--schema", schema).stdout
    assert f'"{schema}"' in printed


# ------------------------------------------------------------------------------------------------ config and content


def test_config_show_prints_a_variable_as_it_is_in_the_file(run: Run, tmp_path: Path) -> None:
    """In a URL's path or query, nothing shows which part is a secret."""
    (tmp_path / "outbox.toml").write_text(
        "health_port = 9999\n[serve]\nhost = '${HERE}'\n[destinations.hook]\nkind = 'http'\n"
        "url = 'https://hooks.example/${HOOK_TOKEN}?key=${HOOK_KEY}'\nproxy = 'http://me:pass%20word@proxy:3128'\n"
    )
    environ = {"HOOK_TOKEN": "hunter2-token", "HOOK_KEY": "hunter2-key", "HERE": "127.0.0.1"}
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        process = run(*arguments, url="sqlite:///x.db", **environ)
        assert process.returncode == 0, process.stderr
        assert "https://hooks.example/${HOOK_TOKEN}?key=${HOOK_KEY}" in process.stdout
        assert not {each for each in ("hunter2", "word") if each in process.stdout}
        assert "http://me:***@proxy:3128" in process.stdout
        assert "9999" in process.stdout


def test_a_variable_of_the_environment_has_the_last_word_and_is_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "outbox.toml").write_text("log_level = '${LEVEL}'\n")
    environ = {"LEVEL": "info", "OUTBOX_LOG_LEVEL": "error"}
    shown = run("config", "show", "--json", url="sqlite:///x.db", **environ).stdout
    assert json.loads(shown)["log_level"] == "error"


def test_config_show_masks_secrets_and_names_origins(run: Run) -> None:
    environ = {"API_URL": "http://localhost:3000", "INTERNAL_API_SECRET": "hunter2-api", "OUTBOX_LEASE_S": "30s"}
    process = run("config", "show", url="postgresql://app:hunter2@db/app", **environ)
    assert process.returncode == 0
    assert "hunter2" not in process.stdout
    assert "OUTBOX_LEASE_S" in process.stdout
    (url,) = [line for line in process.stdout.splitlines() if line.startswith("url ")]
    assert url.split()[-1] == "API_URL"
    secrets = [line.split() for line in process.stdout.splitlines() if line.startswith("secret ")]
    assert ["secret", "**********", "INTERNAL_API_SECRET"] in secrets
    found = json.loads(run("config", "show", "--json", url="postgresql://app:hunter2@db/app", **environ).stdout)
    assert found["lease_s"] == 30
    assert found["destinations"]["api"]["url"].endswith("/extraction/internal/completed")
    assert "hunter2" not in json.dumps(found)


def test_config_check_finds_a_listener_that_cannot_be_loaded(spawn: Spawner, printer: None, tmp_path: Path) -> None:
    assert spawn("outbox", "config", "check").wait() == 0
    (tmp_path / "printing_listener.py").write_text("")
    process = spawn("outbox", "config", "check")
    assert process.wait() == 3
    assert "printing_listener:on_completed" in process.stderr


def test_config_check_finds_certificates_that_cannot_be_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / "outbox.toml").write_text(
        '[destinations.queue]\nkind = "rabbitmq"\nurl = "amqps://rabbit/"\nca_file = "nowhere.pem"\n'
    )
    ended = run("config", "check")
    assert ended.returncode == 3
    assert "ca_file nowhere.pem cannot be used" in ended.stderr


def test_a_variable_that_means_nothing_beside_the_file_is_named(spawn: Spawner, printer: None, tmp_path: Path) -> None:
    environ = {"API_URL": "http://localhost:3000", "DATABASE_URL": f"sqlite:///{tmp_path}/test.db"}
    checked = spawn("outbox", "config", "check", env=environ)
    assert checked.wait() == 0
    assert "warning: API_URL is set, but has no effect" in checked.stderr
    assert spawn("outbox", "db", "upgrade", env=environ).wait() == 0
    drained = spawn("outbox", "relay", "--drain", env=environ)
    assert drained.wait() == 0
    assert "variable_ignored" in drained.stderr


ALL_THAT_PRINT = """
from outbox_cli import main
import sys
for command in (["config", "show"], ["messages", "list"], ["status"], ["dead", "list"], ["messages", "list", "--json"]):
    sys.argv = ["outbox", *command]
    try:
        print("-", flush=True)
        main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_output_in_any_encoding_is_complete_and_json_is_json(
    spawn: Spawner, sqlite_database: Database, tmp_path: Path, encoding: str
) -> None:
    database = sqlite_database
    subject = "größe 5 € 日本 😀"
    (tmp_path / "outbox.toml").write_text('[destinations."a"]\nkind = "http"\nurl = "http://localhost/größe/日本"\n')
    with database.engine.begin() as connection:
        emit(connection, "extraction.completed", {"text": subject}, subject=subject)
    environ = {"DATABASE_URL": database.url, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    shown = spawn("python", "-c", ALL_THAT_PRINT, env=environ)
    assert shown.wait() == 0, shown.report()
    (message,) = json.loads(shown.stdout.rpartition("\n-\n")[2])
    assert message["subject"] == subject
